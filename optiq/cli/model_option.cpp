#include "optiq/cli/model_option.h"

#include <map>

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/cli/interrupt.h"
#include "optiq/cli/output.h"
#include "optiq/io/hub/cache.h"
#include "optiq/kernels/devices.h"

namespace optiq::cli {
namespace {

/** Runs a download with its progress and its notices on stderr; Ctrl-C ends it
 * with a sentence. */
template <typename Run>
io::ResolvedModel with_progress(ProgressMode mode, const Run& run) {
  const InterruptGuard interrupt;
  ProgressPrinter printer(mode);
  io::HubSettings settings = io::hub_settings();
  settings.on_wait = [&] {
    if (interrupt.flag()) {
      printer.finish();
      fail(
          ErrorKind::Cancelled,
          "[pull] interrupted; what came is kept: the same command goes on from "
          "there");
    }
  };
  io::ResolvedModel found =
      run(settings, [&](const ProgressEvent& event) { printer.show(event); });
  settings.on_wait(); // an interrupt after the last byte counts too
  printer.finish();
  for (const std::string& notice : found.notices) {
    print_error("note: {}\n", notice);
  }
  return found;
}

} // namespace

void add_model_option(CLI::App& command, std::string& model) {
  auto* positional = command.add_option(
      "MODEL",
      model,
      "Model directory (MLX or Hugging Face), .gguf file, or "
      "org/name[@revision] of the hub");
  auto* flag = command.add_option("-m,--model", model, "The same as MODEL");
  positional->excludes(flag);
}

void require_model(const CLI::App& command) {
  const CLI::Option* flag = command.get_option_no_throw("--model");
  if (flag != nullptr && flag->count() == 0 &&
      command.get_option("MODEL")->count() == 0) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] no model given. Name a model directory or a model of the hub: "
        "optiq {} DIR",
        command.get_name(),
        command.get_name());
  }
}

void add_compute_option(CLI::App& command, kernels::Compute& compute) {
  static const std::map<std::string, kernels::Compute> kNames{
      {"int8", kernels::Compute::Int8},
      {"fast", kernels::Compute::Fast},
      {"exact", kernels::Compute::Exact}};
  command
      .add_option(
          "--compute",
          compute,
          "Arithmetic: int8 rounds activations to 8 bits (long prompts and "
          "batches run 1.5 times as fast), fast keeps 16, exact also keeps K/V "
          "in float32")
      ->transform(CLI::CheckedTransformer(kNames))
      ->option_text("int8|fast|exact");
}

std::string check_device_name(const std::string& name) {
  return kernels::is_device_name(name)
      ? ""
      : fmt::format(
            "found '{}', expected auto, cpu, mlx, cuda or cuda:N", name);
}

void add_device_option(CLI::App& command, std::string& device) {
  command
      .add_option(
          "--device",
          device,
          "Where the model runs: cpu, mlx, cuda (the first NVIDIA card) or "
          "cuda:N; auto is mlx where it has Metal, else a card where there is "
          "one, else cpu (optiq doctor says what there is)")
      ->check(check_device_name)
      ->option_text(kDeviceNames);
}

CLI::Option* add_file_option(
    CLI::App& command,
    const std::string& names,
    std::string& file,
    const std::string& description) {
  return command.add_option(names, file, description)
      ->check([](const std::string& name) {
        return name.empty() ? "found an empty name, expected one to write to"
                            : "";
      });
}

void add_progress_option(CLI::App& command, std::string& progress) {
  command
      .add_option(
          "--progress",
          progress,
          "Progress on stderr; auto: a bar on a terminal, else plain lines")
      ->option_text("auto|plain|json|none");
}

void add_threads_option(CLI::App& command) {
  command
      .add_option_function<int>(
          "--threads",
          [](int n) {
            if (n > 0) {
              ThreadPool::shared().resize(n);
            }
          },
          "Compute threads; 0 = all cores")
      ->check(CLI::Range(0, 1024));
}

std::filesystem::path find_model(const std::string& model, ProgressMode mode) {
  return with_progress(
             mode,
             [&](const io::HubSettings& settings, const ProgressSink& sink) {
               return io::resolve_model(model, settings, sink);
             })
      .path;
}

std::string name_of_model(const std::filesystem::path& model) {
  if (const auto repo = io::repo_of_snapshot(model)) {
    return std::filesystem::path(*repo).filename().string();
  }
  // "dir/" and "." have no file name of their own.
  const auto path = std::filesystem::weakly_canonical(model);
  const auto name =
      path.has_filename() ? path.filename() : path.parent_path().filename();
  return (name.extension() == ".gguf" ? name.stem() : name).string();
}

io::ResolvedModel fetch_showing(const io::HubId& id, ProgressMode mode) {
  return with_progress(
      mode, [&](const io::HubSettings& settings, const ProgressSink& sink) {
        return io::fetch_model(id, settings, sink);
      });
}

io::ModelDirectory open_model(const std::string& model) {
  return io::ModelDirectory::open(find_model(model));
}

std::shared_ptr<const models::Model> load_checked(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  kernels::require_bytes(
      device,
      directory.loaded_bytes(),
      "the weights of " + directory.path().string());
  return models::load_model(directory, device);
}

} // namespace optiq::cli
