#include "optiq/report/report.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include <fmt/format.h>

#include "optiq/adapters/adapter_files.h"
#include "optiq/artifacts/module_id.h"
#include "optiq/base/error.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/models/model_map.h"

namespace optiq::cli {
namespace {

namespace fs = std::filesystem;

struct ReportFlags {
  std::string model;
  std::string kv;
  std::string adapter;
  std::string output;
};

/** Of the folder that the user named, else of the model's own. */
std::optional<report::KvChoice> find_kv_choice(
    const std::string& folder,
    const fs::path& model) {
  const fs::path own = model / "optiq" / "kv_cache";
  if (folder.empty() && !fs::exists(own / "kv_config.json")) {
    return std::nullopt;
  }
  const fs::path place = folder.empty() ? own : fs::path(folder);
  report::KvChoice choice{
      artifacts::read_kv_config(place / "kv_config.json"), {}};
  const fs::path file = place / "kv_sensitivity.json";
  if (fs::exists(file)) {
    choice.sensitivity = artifacts::kv_sensitivity_from_json(
        artifacts::read_json_file(file), file.string());
  }
  return choice;
}

/** Throws InvalidInput for an adapter of modules that the model lacks. */
std::optional<report::TrainedAdapter> find_adapter(
    const std::string& folder,
    const artifacts::ModelMap& map) {
  if (folder.empty()) {
    return std::nullopt;
  }
  std::set<std::string> known;
  for (const artifacts::MappedModule& module : map.modules) {
    known.insert(artifacts::short_name(artifacts::module_id(module.name)));
  }
  const auto files = adapters::open_adapter(folder);
  report::TrainedAdapter adapter{
      .name = name_of_model(folder),
      .ranks = {},
      .log = artifacts::read_training_log(
          files.directory / adapters::kTrainingLogFile)};
  for (const adapters::StoredUpdate& update : files.updates) {
    if (!known.contains(artifacts::short_name(update.id))) {
      fail(
          ErrorKind::InvalidInput,
          "[report] --adapter {}: found an update of module '{}', which {} "
          "lacks. Was it trained on another model?",
          folder,
          update.module,
          map.name);
    }
    adapter.ranks.push_back(
        {.module = update.module,
         .rank = update.rank,
         .scale = double{update.scale},
         .parameters = update.parameters()});
  }
  return adapter;
}

void run_report(const ReportFlags& flags) {
  const auto directory = open_model(flags.model);
  const artifacts::ModelMap map = models::map_model(directory);
  const report::ReportInput input{
      .map = map,
      .metadata = artifacts::read_metadata(directory.path()),
      .sensitivity = artifacts::read_sensitivity(directory.path()),
      .evals = artifacts::read_eval_results(directory.path()),
      .kv = find_kv_choice(flags.kv, directory.path()),
      .adapter = find_adapter(flags.adapter, map)};
  write_result(flags.output, report::render_report(input), directory.path());
  print("wrote {}\n", flags.output);
}

} // namespace

void add_report_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "report",
      "Write one HTML page about a model: bits, sensitivity, sizes, results");
  auto flags = std::make_shared<ReportFlags>();
  add_model_option(*command, flags->model);
  add_file_option(*command, "-o,--output", flags->output, "HTML file to write")
      ->required();
  command->add_option(
      "--kv",
      flags->kv,
      "Folder that optiq kv-cache wrote (default MODEL/optiq/kv_cache, if "
      "there is one)");
  command->add_option(
      "--adapter",
      flags->adapter,
      "Folder of an adapter: its ranks, and how its training went");
  command->footer(
      "Results of optiq eval appear when they lie in the model's optiq/ "
      "folder:\n"
      "  optiq eval DIR --task ppl --data text.txt --json "
      "DIR/optiq/eval_ppl.json\n"
      "  optiq report DIR -o report.html");
  command->callback([flags] { run_report(*flags); });
}

} // namespace optiq::cli
