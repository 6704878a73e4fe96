#include "optiq/report/report.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <fmt/format.h>

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

void run_report(const ReportFlags& flags) {
  const auto directory = open_model(flags.model);
  const report::ReportInput input{
      .map = models::map_model(directory),
      .metadata = artifacts::read_metadata(directory.path()),
      .sensitivity = artifacts::read_sensitivity(directory.path()),
      .evals = artifacts::read_eval_results(directory.path()),
      .kv = find_kv_choice(flags.kv, directory.path())};
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
  command->footer(
      "Results of optiq eval appear when they lie in the model's optiq/ "
      "folder:\n"
      "  optiq eval DIR --task ppl --data text.txt --json "
      "DIR/optiq/eval_ppl.json\n"
      "  optiq report DIR -o report.html");
  command->callback([flags] { run_report(*flags); });
}

} // namespace optiq::cli
