#include "optiq/quant/rounding_errors.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

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
      .mean_squares = std::vector<mx::bfloat16_t>(groups * out)};
  const int tile = std::max(1, kTileFloats / in);
  for (int begin = 0; begin < out; begin += tile) {
    // Looking rows up gives their values, whatever the format.
    std::vector<std::int32_t> ids(std::min(tile, out - begin));
    std::iota(ids.begin(), ids.end(), begin);
    const mx::array was = device.embed(ids, original, 1.f);
    const mx::array is = device.embed(ids, rounded, 1.f);
    const kernels::HostRows sums =
        device.to_host(device.sum_squares(is, group_size, &was));
    std::transform(
        sums.all().begin(),
        sums.all().end(),
        errors.mean_squares.begin() + begin * groups,
        [&](float sum) {
          return mx::bfloat16_t(sum / static_cast<float>(group_size));
        });
  }
  return errors;
}

} // namespace optiq::quant
