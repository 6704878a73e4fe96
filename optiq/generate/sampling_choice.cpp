#include "optiq/generate/sampling_choice.h"

namespace optiq::generate {
namespace {

/** Whether there was a choice to do it. */
template <typename T>
bool override_with(const std::optional<T>& choice, T& value) {
  value = choice.value_or(value);
  return choice.has_value();
}

} // namespace

void override_sampler(const SamplingChoice& choice, SamplerOptions& sampler) {
  bool is_chosen = override_with(choice.temperature, sampler.temperature);
  is_chosen |= override_with(choice.top_p, sampler.top_p);
  is_chosen |= override_with(choice.min_p, sampler.min_p);
  is_chosen |= override_with(choice.top_k, sampler.top_k);
  is_chosen |= override_with(choice.typical_p, sampler.typical_p);
  if (is_chosen) {
    sampler.order = FilterOrder::MlxLm;
  }
  validate(sampler);
}

void override_logits(const SamplingChoice& choice, LogitsOptions& logits) {
  override_with(choice.repetition_penalty, logits.repetition_penalty);
  override_with(choice.presence_penalty, logits.presence_penalty);
  override_with(choice.frequency_penalty, logits.frequency_penalty);
  validate(logits);
}

} // namespace optiq::generate
