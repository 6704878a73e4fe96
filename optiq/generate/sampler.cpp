#include "optiq/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "optiq/generate/candidates_impl.h"
#include "optiq/generate/logit_row.h"
#include "optiq/generate/require_option_impl.h"

namespace optiq::generate {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();

/** What logits are multiplied by; the largest finite one for a temperature next
 * to 0. */
float scale_of(float temperature) {
  return std::min(1.f / temperature, std::numeric_limits<float>::max());
}

/** All tokens below exp(-depth) have together less than n exp(-depth): a depth
 * at which that is less than what a share of the mass leaves. */
double nucleus_depth(LogitScan& scan, float scale, float share) {
  const double left = (1.0 - share) * scan.mass(scale) * .999;
  return -std::log(left / static_cast<double>(scan.row().size()));
}

/**
 * A logit below which the first filters keep no token, found without looking at
 * any; the margins are more than the rounding of exp. Of the typical tokens the
 * nearest ones to the mean depth are kept: those at more than twice that come
 * after all that lie above it.
 */
float least_logit(LogitScan& scan, const SamplerOptions& options, float scale) {
  double depth = std::numeric_limits<double>::infinity();
  if (options.top_p < 1.f) {
    depth = nucleus_depth(scan, scale, options.top_p);
  }
  if (options.min_p > 0.f) {
    depth = std::min(depth, .01 - std::log(double{options.min_p}));
  }
  if (std::isinf(depth) && options.typical_p < 1.f) {
    depth = std::max(
        nucleus_depth(scan, scale, options.typical_p),
        2.01 * scan.mean_depth(scale));
  }
  return std::max(static_cast<float>(scan.largest() - depth / scale), kLowest);
}

bool has_filters(const SamplerOptions& options) {
  return options.top_k > 0 || options.top_p < 1.f || options.min_p > 0.f ||
      options.typical_p < 1.f || options.epsilon_cutoff > 0.f ||
      options.eta_cutoff > 0.f;
}

/**
 * The tokens that may be drawn, weighed for the first filter. top_k, top_p and
 * min_p each keep a beginning of the tokens in one order, by logit, so they may
 * be applied in any order, as long as top_p knows the mass that it is a share
 * of: of what top_k left in transformers' order, of all tokens in mlx-lm's.
 * typical_p, too, has to know it where it is the first filter.
 */
Candidates select(LogitScan& scan, const SamplerOptions& options) {
  const bool is_warmed = options.order == FilterOrder::Transformers;
  const float scale = is_warmed ? scale_of(options.temperature) : 1.f;
  const auto k = static_cast<std::size_t>(options.top_k);
  const bool has_top_k = k > 0 && k < scan.row().size();
  Candidates candidates(
      has_top_k ? scan.top(k)
                : scan.at_least(least_logit(scan, options, scale)),
      scale);
  if (options.top_p < 1.f) {
    const double whole =
        is_warmed && has_top_k ? candidates.mass() : scan.mass(scale);
    candidates.keep_nucleus(options.top_p * whole);
  }
  if (options.min_p > 0.f) {
    candidates.keep_share(options.min_p);
  }
  if (options.typical_p < 1.f) {
    const bool is_first =
        !has_top_k && options.top_p == 1.f && options.min_p == 0.f;
    candidates.keep_typical(
        is_first ? scan.mean_depth(scale) : candidates.mean_depth(),
        options.typical_p * (is_first ? scan.mass(scale) : candidates.mass()));
  }
  if (options.epsilon_cutoff > 0.f) {
    candidates.keep_probable(options.epsilon_cutoff);
  }
  if (options.eta_cutoff > 0.f) {
    candidates.keep_above_eta(options.eta_cutoff);
  }
  return candidates;
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
  if (options_.temperature == 0.f || !std::isfinite(scan.largest())) {
    return scan.argmax();
  }
  const float scale = scale_of(options_.temperature);
  // 53 random bits: the same draw on every standard library.
  const double place = static_cast<double>(random_() >> 11) * 0x1p-53;
  if (!has_filters(options_)) {
    return scan.at(place, scale);
  }
  Candidates candidates = select(scan, options_);
  candidates.weigh(scale);
  return candidates.at(place);
}

std::int32_t Sampler::sample(std::span<const float> logits) {
  const LogitRow row(logits);
  LogitScan scan(row);
  return sample(scan);
}

} // namespace optiq::generate
