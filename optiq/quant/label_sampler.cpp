#include "optiq/quant/label_sampler.h"

#include <cmath>
#include <span>

#include "optiq/base/thread_pool.h"
#include "optiq/train/random.h"

namespace optiq::quant {
namespace {

/** The token at which the sum of probabilities passes `wanted`; where rounding
 * leaves the whole sum below it, the last one that is possible. */
std::int32_t
token_at(std::span<const float> logits, double log_sum, double wanted) {
  double sum = 0;
  std::int32_t last = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double p = std::exp(double{logits[i]} - log_sum);
    if (p > 0) {
      last = static_cast<std::int32_t>(i);
      sum += p;
    }
    if (sum > wanted) {
      break;
    }
  }
  return last;
}

} // namespace

std::vector<std::int32_t> sample_labels(
    kernels::Device& device,
    const mlx::core::array& logits,
    std::uint64_t seed,
    std::uint64_t stream,
    std::uint64_t first) {
  const std::vector<double> log_sums = device.log_sum_exp(logits);
  const kernels::HostRows rows = device.to_host(logits);
  std::vector<std::int32_t> labels(log_sums.size());
  parallel_for(labels.size(), 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      labels[t] = token_at(
          rows.row(static_cast<int>(t)),
          log_sums[t],
          train::random_uniform(seed, stream, first + t));
    }
  });
  return labels;
}

} // namespace optiq::quant
