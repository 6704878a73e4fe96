#include <memory>
#include <string>

#include <fmt/format.h>

#include "optiq/base/error.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/io/hub/resolve.h"

namespace optiq::cli {
namespace {

struct PullFlags {
  std::string model;
  std::string progress = "auto";
};

void run_pull(const PullFlags& flags) {
  const auto id = io::parse_hub_id(flags.model);
  if (!id) {
    fail(
        ErrorKind::InvalidInput,
        "[pull] found '{}', expected a name on the hub: "
        "org/name[@revision][:file.gguf]",
        flags.model);
  }
  const io::ResolvedModel found =
      fetch_showing(*id, parse_progress_mode(flags.progress));
  print_output(found.path.string() + "\n");
}

} // namespace

void add_pull_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "pull", "Fetch a model of the hub into the cache, and print its path");
  auto flags = std::make_shared<PullFlags>();
  command
      ->add_option(
          "MODEL", flags->model, "org/name[@revision][:file.gguf] of the hub")
      ->required();
  add_progress_option(*command, flags->progress);
  command->footer(
      "An interrupted download goes on where it ended. The cache is that of\n"
      "huggingface_hub: HF_HOME (or HF_HUB_CACHE) says where it is, HF_TOKEN\n"
      "opens private models, HF_ENDPOINT names another hub.\n"
      "Example:\n"
      "  optiq pull Qwen/Qwen3.5-9B");
  command->callback([flags] { run_pull(*flags); });
}

} // namespace optiq::cli
