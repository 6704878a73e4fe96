#pragma once

#include <optional>

#include <CLI/CLI.hpp>

#include "optiq/generate/logits_processors.h"
#include "optiq/generate/sampler.h"

namespace optiq::cli {

/** How tokens are drawn, as far as the user said. */
struct SamplingFlags {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<int> top_k;
  std::optional<float> typical_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
};

/** --temp, --top-p and the like. */
void add_sampling_options(CLI::App& command, SamplingFlags& flags);

/** Puts the flags over the model's own options. Throws InvalidInput for a value
 * out of range. */
void override_sampler(
    const SamplingFlags& flags,
    generate::SamplerOptions& sampler);
void override_logits(
    const SamplingFlags& flags,
    generate::LogitsOptions& logits);

} // namespace optiq::cli
