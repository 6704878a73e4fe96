#include "optiq/report/report.h"

#include <memory>
#include <string>

#include <fmt/format.h>

#include "optiq/base/file.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/model_map.h"
#include "optiq/cli/model_option.h"

namespace optiq::cli {
namespace {

struct ReportFlags {
  std::string model;
  std::string output;
};

void run_report(const ReportFlags& flags) {
  const auto directory = open_model(flags.model);
  const report::ReportInput input{
      .map = map_model(directory),
      .metadata = artifacts::read_metadata(directory.path()),
      .sensitivity = artifacts::read_sensitivity(directory.path()),
      .evals = artifacts::read_eval_results(directory.path())};
  write_file_atomically(flags.output, report::render_report(input));
  fmt::print("wrote {}\n", flags.output);
}

} // namespace

void add_report_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "report",
      "Write one HTML page about a model: bits, sensitivity, sizes, results");
  auto flags = std::make_shared<ReportFlags>();
  add_model_option(*command, flags->model);
  command->add_option("-o,--output", flags->output, "HTML file to write")
      ->required();
  command->footer(
      "Results of optiq eval appear when they lie in the model's optiq/ "
      "folder:\n"
      "  optiq eval DIR --task ppl --data text.txt --json "
      "DIR/optiq/eval_ppl.json\n"
      "  optiq report DIR -o report.html");
  command->callback([flags] { run_report(*flags); });
}

} // namespace optiq::cli
