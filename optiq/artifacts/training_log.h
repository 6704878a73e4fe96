#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/artifacts/json.h"

namespace optiq::artifacts {

/** What one step of a training did. Losses are means per learned token, nats.
 */
struct TrainingStep {
  int step = 0; // from 1
  double loss = 0; // of the step's own examples, before it changed anything
  double gradient_norm = 0; // before it was clipped
  double learning_rate = 0;
  std::uint64_t tokens = 0; // that went through the model
  double seconds = 0;
  std::optional<double> valid_loss; // measured after the step
};

/** What an adapter adds at one linear. */
struct AdapterRank {
  std::string module; // path of the linear
  int rank = 0;
  double scale = 1;
  std::uint64_t parameters = 0;
};

/** The step of the lowest validation loss, the first of equals; null where none
 * was measured. */
const TrainingStep* best_step(const std::vector<TrainingStep>& log);

/** JSONL, one step a line (format: docs/formats.md). */
std::string training_log_text(const std::vector<TrainingStep>& log);
/** Throws Corrupt naming `where` and the line, also for steps that do not count
 * up from 1. */
std::vector<TrainingStep> parse_training_log(
    std::string_view text,
    const std::string& where);
/** The same of a file; empty where there is none. */
std::vector<TrainingStep> read_training_log(const std::filesystem::path& file);

} // namespace optiq::artifacts
