#include "optiq/kernels/affine_codes.h"

#include <cstddef>
#include <cstring>

#include <mlx/ops.h>

#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/affine_checks.h"

namespace optiq::kernels {
namespace {

constexpr int kLanes = 16; // sums side by side; groups are multiples of 32
constexpr int kRowGrain = 8;

struct GroupSums {
  float products = 0;
  float values = 0;
};

GroupSums sum_group(const float* gradient, const std::uint8_t* codes, int n) {
  float products[kLanes] = {};
  float values[kLanes] = {};
  for (int i = 0; i < n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float g = gradient[i + lane];
      products[lane] += g * static_cast<float>(codes[i + lane]);
      values[lane] += g;
    }
  }
  GroupSums sums;
  for (int lane = 0; lane < kLanes; ++lane) {
    sums.products += products[lane];
    sums.values += values[lane];
  }
  return sums;
}

std::vector<float> floats_of(const mx::array& x) {
  const mx::array values = io::materialize(mx::astype(x, mx::float32));
  const std::span<const float> all = io::floats(values);
  return {all.begin(), all.end()};
}

mx::array stored_like(const mx::array& x, const std::vector<float>& values) {
  return io::materialize(
      mx::astype(mx::array(values.data(), x.shape(), mx::float32), x.dtype()));
}

} // namespace

AffineCodes::AffineCodes(
    const AffineWeights& weights,
    int bits,
    int group_size)
    : weights_{
          io::materialize(weights.weight),
          io::materialize(weights.scales),
          io::materialize(weights.biases)},
      bits_(bits),
      group_size_(group_size),
      rows_(weights.weight.shape(0)),
      columns_(weights.scales.shape(1) * group_size) {
  check_affine_format("AffineCodes", bits, group_size);
}

AffineScales AffineCodes::scales() const {
  AffineScales found{floats_of(weights_.scales), floats_of(weights_.biases)};
  for (std::size_t g = 0; g < found.scales.size(); ++g) {
    found.middles[g] += found.scales[g] * middle();
  }
  return found;
}

AffineWeights AffineCodes::with_scales(const AffineScales& scales) const {
  const mx::array stored = stored_like(weights_.scales, scales.scales);
  std::vector<float> biases = floats_of(stored);
  for (std::size_t g = 0; g < biases.size(); ++g) {
    biases[g] = scales.middles[g] - biases[g] * middle();
  }
  return {weights_.weight, stored, stored_like(weights_.biases, biases)};
}

void AffineCodes::unpack(int row, std::span<std::uint8_t> to) const {
  const std::size_t row_bytes = to.size() / 8 * bits_;
  const auto* from = weights_.weight.data<std::uint8_t>() + row * row_bytes;
  const std::uint64_t mask = (1U << bits_) - 1;
  for (std::size_t i = 0; i < to.size(); i += 8) {
    std::uint64_t word = 0; // eight codes: `bits` bytes
    std::memcpy(&word, from + i / 8 * bits_, bits_);
    for (int k = 0; k < 8; ++k) {
      to[i + k] = static_cast<std::uint8_t>((word >> (k * bits_)) & mask);
    }
  }
}

void AffineCodes::add_gradient(
    std::span<const int> rows,
    std::span<const float> gradient,
    AffineScales& sums) const {
  parallel_for(rows.size(), kRowGrain, [&](std::size_t begin, std::size_t end) {
    std::vector<std::uint8_t> codes(columns_);
    for (std::size_t r = begin; r < end; ++r) {
      unpack(rows[r], codes);
      const float* row = gradient.data() + r * columns_;
      const auto n_groups = static_cast<std::size_t>(groups());
      const std::size_t first = static_cast<std::size_t>(rows[r]) * n_groups;
      for (std::size_t g = 0; g < n_groups; ++g) {
        const GroupSums found = sum_group(
            row + g * group_size_, codes.data() + g * group_size_, group_size_);
        sums.scales[first + g] += found.products - middle() * found.values;
        sums.middles[first + g] += found.values;
      }
    }
  });
}

} // namespace optiq::kernels
