#include <algorithm>
#include <cmath>
#include <limits>

#include "optiq/generate/selection_impl.h"

namespace optiq::generate {
namespace {

constexpr double kLowest = std::numeric_limits<float>::lowest();

bool has_top_k(const LogitScan& scan, const SamplerOptions& options) {
  return options.top_k > 0 &&
      static_cast<std::size_t>(options.top_k) < scan.row().size();
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
  return static_cast<float>(std::max(scan.largest() - depth / scale, kLowest));
}

} // namespace

float scale_of(float temperature) {
  return std::min(1.f / temperature, std::numeric_limits<float>::max());
}

float filter_scale(const SamplerOptions& options) {
  return options.order == FilterOrder::Transformers
      ? scale_of(options.temperature)
      : 1.f;
}

float least_looked_at(LogitScan& scan, const SamplerOptions& options) {
  return has_top_k(scan, options)
      ? scan.least_of_top(static_cast<std::size_t>(options.top_k))
      : least_logit(scan, options, filter_scale(options));
}

/**
 * The tokens that may be drawn, weighed for the first filter. top_k, top_p and
 * min_p each keep a beginning of the tokens in one order, by logit, so they may
 * be applied in any order, as long as top_p knows the mass that it is a share
 * of: of what top_k left in transformers' order, of all tokens in mlx-lm's.
 * typical_p, too, has to know it where it is the first filter.
 */
Candidates select_tokens(LogitScan& scan, const SamplerOptions& options) {
  const bool is_warmed = options.order == FilterOrder::Transformers;
  const float scale = filter_scale(options);
  const bool is_cut = has_top_k(scan, options);
  Candidates candidates(
      is_cut ? scan.top(static_cast<std::size_t>(options.top_k))
             : scan.at_least(least_logit(scan, options, scale)),
      scale);
  if (options.top_p < 1.f) {
    const double whole =
        is_warmed && is_cut ? candidates.mass() : scan.mass(scale);
    candidates.keep_nucleus(options.top_p * whole);
  }
  if (options.min_p > 0.f) {
    candidates.keep_share(options.min_p);
  }
  if (options.typical_p < 1.f) {
    const bool is_first =
        !is_cut && options.top_p == 1.f && options.min_p == 0.f;
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

} // namespace optiq::generate
