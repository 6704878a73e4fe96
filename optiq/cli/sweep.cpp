#include "optiq/quant/sweep.h"

#include <charconv>
#include <filesystem>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "optiq/artifacts/eval_result.h"
#include "optiq/base/error.h"
#include "optiq/cli/adapter_option.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/convert_options.h"
#include "optiq/cli/interrupt.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/cli/progress.h"
#include "optiq/report/sweep.h"

namespace optiq::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kJson = "sweep.json";
constexpr const char* kPage = "sweep.html";

struct SweepFlags {
  ConvertFlags convert;
  std::string range = "3:8:0.25";
  std::vector<std::string> also;
  std::vector<std::string> data;
  std::size_t limit = 0;
  bool overwrite = false;
};

/** "LOW:HIGH:STEP". */
quant::SweepRange parse_range(const std::string& text) {
  double numbers[3] = {};
  const char* at = text.data();
  const char* const end = at + text.size();
  bool is_good = true;
  for (int i = 0; i < 3 && is_good; ++i) {
    is_good = i == 0 || (at != end && *at++ == ':');
    const auto [next, error] = std::from_chars(at, end, numbers[i]);
    is_good = is_good && error == std::errc();
    at = next;
  }
  if (!is_good || at != end) {
    fail(
        ErrorKind::InvalidInput,
        "[sweep] --file-bpw '{}': expected LOW:HIGH:STEP in bits per weight, "
        "like 3.0:8.0:0.25.",
        text);
  }
  return {numbers[0], numbers[1], numbers[2]};
}

quant::SweepOptions sweep_options(const SweepFlags& flags) {
  quant::SweepOptions options;
  options.range = parse_range(flags.range);
  quant::sizes_of(options.range);
  options.convert = to_options(flags.convert);
  for (const std::string& model : flags.also) {
    options.also.push_back(find_model(model));
  }
  options.data.assign(flags.data.begin(), flags.data.end());
  options.limit = flags.limit;
  return options;
}

/** Of a folder that models are made in. */
class Workspace {
 public:
  Workspace(const fs::path& folder, bool overwrite) : folder_(folder) {
    if (!overwrite && fs::exists(folder / kJson)) {
      fail(
          ErrorKind::InvalidInput,
          "[sweep] -o {}: it has a {} already. Choose another folder, or add "
          "--overwrite.",
          folder.string(),
          kJson);
    }
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) {
      fail(
          ErrorKind::Io,
          "[sweep] -o {}: it can't be made: {}.",
          folder.string(),
          error.message());
    }
  }
  ~Workspace() {
    std::error_code none; // what stays is replaced by the next sweep
    fs::remove_all(folder_ / "model", none);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

 private:
  fs::path folder_;
};

std::string
figure(const artifacts::SweepPoint& point, const std::string& data, int task) {
  for (const artifacts::EvalResult& result : point.results) {
    if (result.data != data ||
        static_cast<int>(result.scores.index()) != task) {
      continue;
    }
    if (const auto* kl = std::get_if<artifacts::KlScores>(&result.scores)) {
      return fmt::format("{:.5f}", kl->mean_kl);
    }
    if (const auto* ppl =
            std::get_if<artifacts::PerplexityScores>(&result.scores)) {
      return fmt::format("{:.4f}", ppl->ppl);
    }
    if (const auto* match =
            std::get_if<artifacts::ExactMatchScores>(&result.scores)) {
      return fmt::format("{:.3f}", match->accuracy);
    }
  }
  return "-";
}

void print_sweep(const artifacts::Sweep& sweep) {
  for (const std::string& data : sweep.data) {
    print("{}\n", data);
    print(
        "{:<10} {:<24} {:>12} {:>9} {:>10} {:>10} {:>9}\n",
        "series",
        "model",
        "bytes",
        "file bpw",
        "KL",
        "ppl",
        "accuracy");
    for (const artifacts::SweepPoint& point : sweep.points) {
      print(
          "{:<10} {:<24} {:>12} {:>9.3f} {:>10} {:>10} {:>9}\n",
          point.series,
          point.label,
          point.bytes,
          point.file_bpw,
          figure(point, data, 0),
          figure(point, data, 1),
          figure(point, data, 2));
    }
  }
}

void run(const SweepFlags& flags) {
  const quant::SweepOptions options = sweep_options(flags);
  const fs::path folder = flags.convert.output;
  const Workspace workspace(folder, flags.overwrite);
  const InterruptGuard interrupt;
  ProgressPrinter printer(parse_progress_mode(flags.convert.progress));
  const artifacts::Sweep sweep =
      quant::run_sweep(options, folder, [&](const ProgressEvent& event) {
        if (interrupt.flag()) {
          printer.finish();
          fail(
              ErrorKind::Cancelled,
              "[sweep] interrupted; nothing was written. The sensitivity that "
              "was measured is kept.");
        }
        printer.show(event);
      });
  printer.finish();
  for (const std::string& notice : sweep.notices) {
    print_error("note: {}\n", notice);
  }
  print_sweep(sweep);
  const fs::path& source = options.convert.source;
  write_result(
      folder / kJson,
      artifacts::dump_json(artifacts::to_json(sweep), 2),
      source);
  write_result(folder / kPage, report::render_sweep(sweep), source);
  print("written to {}\n", folder.string());
}

} // namespace

void add_sweep_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "sweep", "Measure quality by size: optiq, static and uniform widths");
  auto flags = std::make_shared<SweepFlags>();
  flags->convert.options.plan.candidate_bits = {2, 3, 4, 5, 6, 8};
  add_model_option(*command, flags->convert.source);
  command
      ->add_option(
          "--file-bpw",
          flags->range,
          "Sizes in bits per weight, everything counted")
      ->option_text("LOW:HIGH:STEP [3:8:0.25]");
  add_file_option(
      *command,
      "-o,--output",
      flags->convert.output,
      "Folder for sweep.json and sweep.html")
      ->required();
  command->add_flag(
      "--overwrite", flags->overwrite, "Replace those of an earlier sweep");
  command
      ->add_option(
          "--data",
          flags->data,
          "What to measure on, as for optiq eval; may be given more than once")
      ->required()
      ->allow_extra_args(false);
  command
      ->add_option("--limit", flags->limit, "Rows (or chunks) at most, 0 = all")
      ->capture_default_str();
  command
      ->add_option(
          "--also",
          flags->also,
          "Another version of the model to measure; may be given more than once")
      ->allow_extra_args(false);
  add_width_options(*command, flags->convert);
  command->get_option("--candidate-bits")->default_str("2,3,4,5,6,8");
  add_rounding_options(*command, flags->convert);
  add_calibration_options(*command, flags->convert);
  add_threads_option(*command);
  add_progress_option(*command, flags->convert.progress);
  refuse_adapter_option(
      *command, "models are compared with the source that they are made from");
  command->footer(
      "Each model is converted, measured as optiq eval does, and removed; "
      "sensitivity is\nmeasured once.\n"
      "Example:\n"
      "  optiq sweep DIR --file-bpw 3:6:0.5 --data questions.jsonl -o SWEEP");
  command->callback([flags] { run(*flags); });
}

} // namespace optiq::cli
