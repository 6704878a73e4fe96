#include "optiq/cli/sampling_flags.h"

namespace optiq::cli {
namespace {

/** Whether there was a flag to do it. */
template <typename T>
bool override_with(const std::optional<T>& flag, T& value) {
  value = flag.value_or(value);
  return flag.has_value();
}

} // namespace

void add_sampling_options(CLI::App& command, SamplingFlags& flags) {
  command.add_option(
      "--temp",
      flags.temperature,
      "Temperature, 0 = greedy (default: the model's generation_config)");
  command.add_option("--top-p", flags.top_p, "Nucleus sampling, (0, 1]");
  command.add_option("--top-k", flags.top_k, "Best k tokens, 0 = all");
  command.add_option(
      "--min-p", flags.min_p, "Least share of the best token's probability");
  command.add_option(
      "--typical-p", flags.typical_p, "Locally typical sampling, (0, 1]");
  command.add_option(
      "--repetition-penalty",
      flags.repetition_penalty,
      "Divides the logits of tokens of prompt and answer, 1 = off");
  command.add_option(
      "--presence-penalty",
      flags.presence_penalty,
      "Taken from the logits of tokens of the answer, -2 to 2");
  command.add_option(
      "--frequency-penalty",
      flags.frequency_penalty,
      "The same, for each time that the answer has the token");
}

void override_sampler(
    const SamplingFlags& flags,
    generate::SamplerOptions& sampler) {
  bool chosen = override_with(flags.temperature, sampler.temperature);
  chosen |= override_with(flags.top_p, sampler.top_p);
  chosen |= override_with(flags.min_p, sampler.min_p);
  chosen |= override_with(flags.top_k, sampler.top_k);
  chosen |= override_with(flags.typical_p, sampler.typical_p);
  if (chosen) {
    sampler.order = generate::FilterOrder::MlxLm; // as mlx-lm's flags mean it
  }
  generate::validate(sampler);
}

void override_logits(
    const SamplingFlags& flags,
    generate::LogitsOptions& logits) {
  override_with(flags.repetition_penalty, logits.repetition_penalty);
  override_with(flags.presence_penalty, logits.presence_penalty);
  override_with(flags.frequency_penalty, logits.frequency_penalty);
  generate::validate(logits);
}

} // namespace optiq::cli
