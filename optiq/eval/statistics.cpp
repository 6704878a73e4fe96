#include "optiq/eval/statistics.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

namespace optiq::eval {

Estimate mean(std::span<const double> samples) {
  const std::vector<double> ones(samples.size(), 1.0);
  return ratio_of_sums(samples, ones);
}

Estimate ratio_of_sums(
    std::span<const double> sums,
    std::span<const double> counts) {
  assert(!sums.empty() && sums.size() == counts.size());
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  const double ratio = std::accumulate(sums.begin(), sums.end(), 0.0) / total;
  const auto n = static_cast<double>(sums.size());
  if (sums.size() < 2) {
    return {ratio, 0};
  }
  double squares = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const double residual = sums[i] - ratio * counts[i];
    squares += residual * residual;
  }
  return {ratio, std::sqrt(n / (n - 1) * squares) / total};
}

Estimate proportion(std::size_t successes, std::size_t trials) {
  assert(trials > 0 && successes <= trials);
  const auto n = static_cast<double>(trials);
  const double p = static_cast<double>(successes) / n;
  return {p, std::sqrt(p * (1 - p) / n)};
}

double quantile(std::vector<double> samples, double q) {
  assert(!samples.empty() && q >= 0 && q <= 1);
  const double at = q * static_cast<double>(samples.size() - 1);
  const auto low = static_cast<std::size_t>(at);
  std::nth_element(samples.begin(), samples.begin() + low, samples.end());
  const double below = samples[low];
  if (low + 1 == samples.size()) {
    return below;
  }
  const double above =
      *std::min_element(samples.begin() + low + 1, samples.end());
  return below + (at - static_cast<double>(low)) * (above - below);
}

} // namespace optiq::eval
