#include "optiq/cli/sampling_flags.h"

#include <chrono>

namespace optiq::cli {

void add_sampling_options(CLI::App& command, generate::SamplingChoice& choice) {
  command.add_option(
      "--temp",
      choice.temperature,
      "Temperature, 0 = greedy (default: the model's generation_config)");
  command.add_option("--top-p", choice.top_p, "Nucleus sampling, (0, 1]");
  command.add_option("--top-k", choice.top_k, "Best k tokens, 0 = all");
  command.add_option(
      "--min-p", choice.min_p, "Least share of the best token's probability");
  command.add_option(
      "--typical-p", choice.typical_p, "Locally typical sampling, (0, 1]");
  command.add_option(
      "--repetition-penalty",
      choice.repetition_penalty,
      "Divides the logits of tokens of prompt and answer, 1 = off");
  command.add_option(
      "--presence-penalty",
      choice.presence_penalty,
      "Taken from the logits of tokens of the answer, -2 to 2");
  command.add_option(
      "--frequency-penalty",
      choice.frequency_penalty,
      "The same, for each time that the answer has the token");
}

std::uint64_t choose_seed(const std::optional<std::uint64_t>& seed) {
  return seed.value_or(static_cast<std::uint64_t>(
      std::chrono::system_clock::now().time_since_epoch().count()));
}

} // namespace optiq::cli
