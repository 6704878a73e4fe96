#include "optiq/artifacts/training_log.h"

#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/base/file.h"

namespace optiq::artifacts {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{1} << 30;

Json to_json(const TrainingStep& step) {
  Json json = {
      {"step", step.step},
      {"loss", step.loss},
      {"gradient_norm", step.gradient_norm},
      {"learning_rate", step.learning_rate},
      {"tokens", step.tokens},
      {"seconds", step.seconds}};
  if (step.valid_loss) {
    json["valid_loss"] = *step.valid_loss;
  }
  return json;
}

TrainingStep step_from_json(const Json& json, const std::string& where) {
  TrainingStep step{
      .step = required<int>(json, "step", where),
      .loss = required<double>(json, "loss", where),
      .gradient_norm = required<double>(json, "gradient_norm", where),
      .learning_rate = required<double>(json, "learning_rate", where),
      .tokens = required<std::uint64_t>(json, "tokens", where),
      .seconds = required<double>(json, "seconds", where),
      .valid_loss = {}};
  if (json.contains("valid_loss")) {
    step.valid_loss = required<double>(json, "valid_loss", where);
  }
  return step;
}

} // namespace

const TrainingStep* best_step(const std::vector<TrainingStep>& log) {
  const TrainingStep* best = nullptr;
  for (const TrainingStep& step : log) {
    if (step.valid_loss &&
        (best == nullptr || *step.valid_loss < *best->valid_loss)) {
      best = &step;
    }
  }
  return best;
}

std::string training_log_text(const std::vector<TrainingStep>& log) {
  std::string text;
  for (const TrainingStep& step : log) {
    text += dump_json(to_json(step), -1);
  }
  return text;
}

std::vector<TrainingStep> parse_training_log(
    std::string_view text,
    const std::string& where) {
  std::vector<TrainingStep> log;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::string place = fmt::format("{}, line {}", where, log.size() + 1);
    const Json json = parse_json(line, place);
    if (!json.is_object()) {
      fail(
          ErrorKind::Corrupt,
          "[parse_training_log] {}: found {}, expected an object",
          place,
          describe(json));
    }
    log.push_back(step_from_json(json, place));
    if (log.back().step != static_cast<int>(log.size())) {
      fail(
          ErrorKind::Corrupt,
          "[parse_training_log] {}: found step {}, expected steps from 1 on, "
          "one a line",
          place,
          log.back().step);
    }
  }
  return log;
}

std::vector<TrainingStep> read_training_log(const std::filesystem::path& file) {
  return std::filesystem::exists(file)
      ? parse_training_log(read_text_file(file, kMaxBytes), file.string())
      : std::vector<TrainingStep>{};
}

} // namespace optiq::artifacts
