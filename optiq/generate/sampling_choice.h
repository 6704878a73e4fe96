#pragma once

#include <optional>

#include "optiq/generate/logits_processors.h"
#include "optiq/generate/sampler.h"

namespace optiq::generate {

/** How tokens are drawn, as far as somebody chose it: the flags of a command,
 * the fields of a request. */
struct SamplingChoice {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<int> top_k;
  std::optional<float> typical_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
};

/** Puts a choice over the model's own options; filters that are chosen apply in
 * mlx-lm's order. Throws InvalidInput for a value out of range. */
void override_sampler(const SamplingChoice& choice, SamplerOptions& sampler);
/** The same for penalties. */
void override_logits(const SamplingChoice& choice, LogitsOptions& logits);

} // namespace optiq::generate
