#include "optiq/generate/sampler.h"

#include <cmath>
#include <utility>

#include "optiq/generate/logit_row.h"
#include "optiq/generate/require_option_impl.h"
#include "optiq/generate/selection_impl.h"

namespace optiq::generate {
namespace {

bool has_filters(const SamplerOptions& options) {
  return options.top_k > 0 || options.top_p < 1.f || options.min_p > 0.f ||
      options.typical_p < 1.f || options.epsilon_cutoff > 0.f ||
      options.eta_cutoff > 0.f;
}

/** 53 random bits: the same draw on every standard library. */
double draw_place(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;
}

} // namespace

void validate(const SamplerOptions& options) {
  require_option(
      std::isfinite(options.temperature) && options.temperature >= 0.f,
      "temperature",
      options.temperature,
      "a finite number of at least 0");
  for (const auto& [name, value] :
       {std::pair{"top_p", options.top_p},
        std::pair{"typical_p", options.typical_p}}) {
    require_option(
        value > 0.f && value <= 1.f, name, value, "above 0 and at most 1");
  }
  for (const auto& [name, value] :
       {std::pair{"min_p", options.min_p},
        std::pair{"epsilon_cutoff", options.epsilon_cutoff},
        std::pair{"eta_cutoff", options.eta_cutoff}}) {
    require_option(
        value >= 0.f && value < 1.f, name, value, "at least 0 and below 1");
  }
  require_option(options.top_k >= 0, "top_k", options.top_k, "0 (off) or more");
}

Sampler::Sampler(const SamplerOptions& options)
    : options_(options), random_(options.seed) {
  validate(options);
}

std::int32_t Sampler::sample(LogitScan& scan) {
  if (takes_largest(scan)) {
    return scan.argmax();
  }
  const float scale = scale_of(options_.temperature);
  const double place = draw_place(random_);
  if (!has_filters(options_)) {
    return scan.at(place, scale);
  }
  Candidates candidates = select_tokens(scan, options_);
  candidates.weigh(scale);
  return candidates.at(place);
}

float Sampler::scale() const {
  if (is_greedy()) {
    return 1.f; // whatever it is
  }
  return has_filters(options_) ? filter_scale(options_)
                               : scale_of(options_.temperature);
}

std::vector<std::size_t> Sampler::next_blocks(LogitScan& scan) const {
  if (takes_largest(scan)) {
    return scan.blocks_from(scan.largest());
  }
  if (has_filters(options_)) {
    return scan.blocks_from(least_looked_at(scan, options_));
  }
  std::mt19937_64 next = random_;
  return {scan.block_at(draw_place(next), scale())};
}

bool Sampler::takes_largest(const LogitScan& scan) const {
  return is_greedy() || !std::isfinite(scan.largest());
}

std::int32_t Sampler::sample(std::span<const float> logits) {
  const LogitRow row(logits);
  LogitScan scan(row);
  return sample(scan);
}

} // namespace optiq::generate
