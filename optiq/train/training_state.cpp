#include <algorithm>
#include <charconv>
#include <map>
#include <type_traits>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/io/safetensors.h"
#include "optiq/train/training_state_impl.h"

namespace optiq::train {
namespace {

constexpr const char* kFormat = "optiq-training-1";
constexpr const char* kFunction = "load_training_state";

/** A tensor of a module, by its name in the file. */
template <typename Values>
struct NamedValues {
  std::string name;
  mx::Shape shape;
  Values* values; // of the module
};

/** Of a module to write, or to fill. */
template <typename Module>
auto tensors_of(Module& m) {
  const std::string a = m.shape.module + ".lora_a";
  const std::string b = m.shape.module + ".lora_b";
  const mx::Shape a_shape{m.shape.rank, m.shape.in};
  const mx::Shape b_shape{m.shape.rank, m.shape.out};
  using Values = std::remove_pointer_t<decltype(&m.a)>;
  return std::vector<NamedValues<Values>>{
      {a, a_shape, &m.a},
      {a + ".mean", a_shape, &m.a_mean},
      {a + ".square", a_shape, &m.a_square},
      {b, b_shape, &m.b},
      {b + ".mean", b_shape, &m.b_mean},
      {b + ".square", b_shape, &m.b_square}};
}

/** Metadata of the file; its step. */
TrainingProgress progress_of(
    const io::SafetensorsFile& file,
    const std::string& where) {
  const auto value_of = [&](const char* key) {
    const auto found = file.metadata().find(key);
    return found == file.metadata().end() ? std::string() : found->second;
  };
  TrainingProgress progress{.settings = value_of("settings")};
  const std::string step = value_of("step");
  const auto [end, error] = std::from_chars(
      step.data(), step.data() + step.size(), progress.steps_done);
  if (value_of("format") != kFormat || error != std::errc() ||
      end != step.data() + step.size() || progress.steps_done < 0) {
    fail(
        ErrorKind::Corrupt,
        "[{}] {}: found metadata without format {} and a step, expected the "
        "state of a training. Begin anew",
        kFunction,
        where,
        kFormat);
  }
  return progress;
}

} // namespace

void save_training_state(
    const TrainingProgress& progress,
    const std::vector<TrainedModule>& modules,
    const std::filesystem::path& path) {
  std::vector<io::TensorToWrite> tensors;
  for (const TrainedModule& module : modules) {
    for (const auto& tensor : tensors_of(module)) {
      tensors.push_back(
          {.name = tensor.name,
           .dtype = mx::float32,
           .shape = tensor.shape,
           .make = [values = tensor.values, shape = tensor.shape] {
             return mx::array(values->data(), shape, mx::float32);
           }});
    }
  }
  io::write_safetensors(
      path,
      tensors,
      {{"format", kFormat},
       {"settings", progress.settings},
       {"step", std::to_string(progress.steps_done)}});
}

TrainingProgress load_training_state(
    const std::filesystem::path& path,
    std::vector<TrainedModule>& modules) {
  const auto file = io::SafetensorsFile::open(path);
  TrainingProgress progress = progress_of(file, path.string());
  std::map<std::string, io::TensorInfo> stored;
  for (const io::TensorInfo& tensor : file.tensors()) {
    stored.emplace(tensor.name, tensor);
  }
  for (TrainedModule& module : modules) {
    for (const auto& tensor : tensors_of(module)) {
      const auto found = stored.extract(tensor.name);
      if (found.empty() || found.mapped().shape != tensor.shape ||
          found.mapped().dtype != mx::float32) {
        fail(
            ErrorKind::InvalidInput,
            "[{}] {}: found no tensor {} of float32 [{}, {}], expected the "
            "state of a training of the same modules and ranks",
            kFunction,
            path.string(),
            tensor.name,
            tensor.shape[0],
            tensor.shape[1]);
      }
      const kernels::HostRows values =
          kernels::cpu_device().to_host(file.load(found.mapped()));
      std::copy(
          values.all().begin(), values.all().end(), tensor.values->begin());
    }
  }
  if (!stored.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found tensor {}, which no module has, expected the state of a "
        "training of the same modules",
        kFunction,
        path.string(),
        stored.begin()->first);
  }
  return progress;
}

} // namespace optiq::train
