#include "optiq/quant/rounding_errors.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "optiq/base/thread_pool.h"

namespace optiq::quant {
namespace {

constexpr int kTileFloats = 1 << 20;

} // namespace

RoundingErrors rounding_errors(
    kernels::Device& device,
    const kernels::Matrix& original,
    const kernels::Matrix& rounded) {
  const int in = original.in_features();
  const int out = original.out_features();
  const int group_size = rounded.group_size();
  const auto groups = static_cast<std::size_t>(in / group_size);
  RoundingErrors errors{
      .bits = rounded.bits(),
      .group_size = group_size,
      .mean_squares = std::vector<mlx::core::bfloat16_t>(groups * out)};
  const int tile = std::max(1, kTileFloats / in);
  for (int begin = 0; begin < out; begin += tile) {
    // Looking rows up gives their values, whatever the format.
    std::vector<std::int32_t> ids(std::min(tile, out - begin));
    std::iota(ids.begin(), ids.end(), begin);
    const kernels::HostRows was =
        device.to_host(device.embed(ids, original, 1.f));
    const kernels::HostRows is =
        device.to_host(device.embed(ids, rounded, 1.f));
    parallel_for(
        ids.size() * groups, 256, [&](std::size_t first, std::size_t last) {
          for (std::size_t g = first; g < last; ++g) {
            float sum = 0;
            for (std::size_t i = g * group_size; i < (g + 1) * group_size;
                 ++i) {
              const float error = is.all()[i] - was.all()[i];
              sum += error * error;
            }
            errors.mean_squares[begin * groups + g] =
                sum / static_cast<float>(group_size);
          }
        });
  }
  return errors;
}

} // namespace optiq::quant
