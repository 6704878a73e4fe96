#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <mlx/ops.h>

#include "optiq/adapters/adapter_files.h"
#include "optiq/adapters/file_names_impl.h"
#include "optiq/base/error.h"
#include "optiq/base/output_file.h"
#include "optiq/io/array.h"
#include "optiq/io/safetensors.h"

// Both libraries read one adapter_config.json. PEFT takes ranks and alphas per
// module; mlx-lm has one rank and one scale for all, so that its tensors are
// filled up with zeros to the largest rank, and scales are part of B.

namespace optiq::adapters {
namespace {

namespace fs = std::filesystem;
using artifacts::Json;

int rank_of(const AdapterUpdate& update) {
  return update.a.shape(0);
}

double alpha_of(const AdapterUpdate& update) {
  return static_cast<double>(update.scale) * rank_of(update);
}

const AdapterUpdate& of_largest_rank(
    const std::vector<AdapterUpdate>& updates) {
  return *std::max_element(
      updates.begin(), updates.end(), [](const auto& left, const auto& right) {
        return rank_of(left) < rank_of(right);
      });
}

/** The module in the model that AutoModelForCausalLM makes. */
std::string peft_module(const AdapterUpdate& update) {
  const artifacts::ModuleId id = artifacts::module_id(update.module);
  return id.layer < 0 ? id.part
                      : artifacts::layer_path(id.layer) + "." + id.part;
}

/** The module as a layer has it; what is in no layer by its whole path. */
std::string mlx_key(const AdapterUpdate& update) {
  const artifacts::ModuleId id = artifacts::module_id(update.module);
  return id.layer < 0 ? update.module : id.part;
}

/** Each once. */
std::set<std::string> names_of(
    const std::vector<AdapterUpdate>& updates,
    std::string (*name)(const AdapterUpdate&)) {
  std::set<std::string> names;
  for (const AdapterUpdate& update : updates) {
    names.insert(name(update));
  }
  return names;
}

std::string part_of(const AdapterUpdate& update) {
  return artifacts::module_id(update.module).part;
}

Json make_config(const AdapterToWrite& adapter) {
  const AdapterUpdate& largest = of_largest_rank(adapter.updates);
  Json ranks = Json::object();
  Json alphas = Json::object();
  for (const AdapterUpdate& update : adapter.updates) {
    if (rank_of(update) != rank_of(largest)) {
      ranks[peft_module(update)] = rank_of(update);
    }
    if (alpha_of(update) != alpha_of(largest)) {
      alphas[peft_module(update)] = alpha_of(update);
    }
  }
  return {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path", adapter.base_model},
      {"r", rank_of(largest)},
      {"lora_alpha", alpha_of(largest)},
      {"lora_dropout", adapter.dropout},
      {"rank_pattern", ranks},
      {"alpha_pattern", alphas},
      {"target_modules", names_of(adapter.updates, part_of)},
      {"bias", "none"},
      {"modules_to_save", nullptr},
      {"fan_in_fan_out", false},
      {"init_lora_weights", true},
      {"use_dora", false},
      {"use_rslora", false},
      {"inference_mode", true},
      {"fine_tune_type", "lora"},
      {"num_layers", -1}, // all of them
      {"lora_parameters",
       {{"rank", rank_of(largest)},
        {"scale", 1.0},
        {"dropout", adapter.dropout},
        {"keys", names_of(adapter.updates, mlx_key)}}}};
}

/** The keys that the original's readers ask are those of its own file. */
Json make_record(const AdapterToWrite& adapter) {
  Json ranks = Json::object();
  Json scales = Json::object();
  for (const AdapterUpdate& update : adapter.updates) {
    const auto id = artifacts::module_id(update.module);
    ranks
        [id.layer < 0 ? id.part
                      : fmt::format("layer_{}.{}", id.layer, id.part)] =
            rank_of(update);
    scales[update.module] = update.scale;
  }
  Json ours = adapter.record;
  ours[kScalesMember] = scales;
  return {
      {"source_model", adapter.base_model},
      {"rank", rank_of(of_largest_rank(adapter.updates))},
      {"scale", 1.0},
      {"dropout", adapter.dropout},
      {"applied_ranks", ranks},
      {kRecordMember, ours}};
}

io::TensorToWrite tensor_of(std::string name, const mx::array& values) {
  return {
      .name = std::move(name),
      .dtype = mx::float32,
      .shape = values.shape(),
      .make = [values] { return io::materialize(values); }};
}

/** Rows of zeros below x [rank, width]. */
mx::array filled_up(const mx::array& x, int rank) {
  const mx::array zeros =
      mx::zeros({rank - x.shape(0), x.shape(1)}, mx::float32);
  return mx::concatenate({x, zeros}, 0);
}

std::vector<io::TensorToWrite> peft_tensors(
    const std::vector<AdapterUpdate>& updates) {
  std::vector<io::TensorToWrite> tensors;
  for (const AdapterUpdate& update : updates) {
    const std::string module = "base_model.model." + peft_module(update);
    tensors.push_back(tensor_of(module + ".lora_A.weight", update.a));
    tensors.push_back(
        tensor_of(module + ".lora_B.weight", mx::transpose(update.b)));
  }
  return tensors;
}

std::vector<io::TensorToWrite> mlx_tensors(
    const std::vector<AdapterUpdate>& updates) {
  const int rank = rank_of(of_largest_rank(updates));
  std::vector<io::TensorToWrite> tensors;
  for (const AdapterUpdate& update : updates) {
    tensors.push_back(tensor_of(
        update.module + ".lora_a", mx::transpose(filled_up(update.a, rank))));
    tensors.push_back(tensor_of(
        update.module + ".lora_b",
        mx::multiply(filled_up(update.b, rank), mx::array(update.scale))));
  }
  return tensors;
}

void check(const AdapterToWrite& adapter) {
  if (adapter.updates.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[write_adapter] found no update, expected one of a linear at least");
  }
  for (const AdapterUpdate& update : adapter.updates) {
    const bool is_finite = std::isfinite(update.scale) &&
        mx::all(mx::isfinite(update.a)).item<bool>() &&
        mx::all(mx::isfinite(update.b)).item<bool>();
    if (!is_finite) {
      fail(
          ErrorKind::InvalidInput,
          "[write_adapter] module '{}': found values that are not finite, "
          "expected numbers. Did the training diverge?",
          update.module);
    }
  }
}

void write_json(const fs::path& file, const Json& json) {
  write_file_atomically(file, artifacts::dump_json(json, 2));
}

} // namespace

FolderKind adapter_folder() {
  return {
      .name = "an adapter",
      .files =
          {kConfigFile,
           kPeftFile,
           kMlxFile,
           kRecordFile,
           kTrainingLogFile,
           kTrainingStateFile},
      .required = {kConfigFile}};
}

void write_adapter(const AdapterToWrite& adapter, const fs::path& directory) {
  check(adapter);
  io::write_safetensors(
      directory / kPeftFile, peft_tensors(adapter.updates), {{"format", "pt"}});
  io::write_safetensors(
      directory / kMlxFile, mlx_tensors(adapter.updates), {{"format", "mlx"}});
  write_json(directory / kRecordFile, make_record(adapter));
  write_json(directory / kConfigFile, make_config(adapter));
}

} // namespace optiq::adapters
