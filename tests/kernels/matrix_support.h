#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "support/cpu_operations.h"

#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"

namespace optiq::kernels::test {

/** Half the distance of 1 to the next float: the error of one operation. */
constexpr double kEps = 0x1p-24;

inline std::vector<float>
normal_values(std::size_t n, unsigned seed, float sigma = 1.f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.f, sigma);
  std::vector<float> values(n);
  for (float& v : values) {
    v = normal(random);
  }
  return values;
}

inline mx::array array_of(
    const std::vector<float>& values,
    const mx::Shape& shape,
    mx::Dtype dtype = mx::float32) {
  mx::array x = mx::astype(mx::array(values.begin(), shape), dtype);
  mx::eval(x);
  return x;
}

/** Values as float32, whatever the dtype. */
inline std::vector<float> values_of(const mx::array& x) {
  mx::array y = mx::contiguous(mx::astype(x, mx::float32));
  mx::eval(y);
  return {y.data<float>(), y.data<float>() + y.size()};
}

/** Rows [first, first + n) of x as an array of its own. */
inline mx::array
rows_of(const std::vector<float>& x, int cols, int first, int n) {
  return array_of(
      {x.begin() + static_cast<std::ptrdiff_t>(first) * cols,
       x.begin() + static_cast<std::ptrdiff_t>(first + n) * cols},
      {n, cols});
}

/** A random affine matrix and its parts in plain form. */
struct AffineCase {
  int out;
  int in;
  int bits;
  int group;
  AffineWeights triple;
  std::vector<std::uint8_t> codes; // [out][in]
  std::vector<float> scales; // [out][in / group]
  std::vector<float> biases;

  double scale(int n, int k) const {
    return scales[n * (in / group) + k / group];
  }
  double bias(int n, int k) const {
    return biases[n * (in / group) + k / group];
  }
  double code(int n, int k) const {
    return codes[static_cast<std::size_t>(n) * in + k];
  }
  double weight(int n, int k) const {
    return code(n, k) * scale(n, k) + bias(n, k);
  }
};

inline AffineCase make_affine(
    int out,
    int in,
    int bits,
    int group,
    mx::Dtype dtype = mx::bfloat16) {
  std::mt19937 random(out * 7 + in * 3 + bits + group);
  const int words = in * bits / 32;
  std::vector<std::uint32_t> packed(static_cast<std::size_t>(out) * words);
  for (auto& word : packed) {
    word = random();
  }
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(out) * in);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const std::size_t row = i / in;
    for (int b = 0; b < bits; ++b) {
      const std::size_t bit = i % in * bits + b;
      const std::uint32_t word = packed[row * words + bit / 32];
      codes[i] |= static_cast<std::uint8_t>(((word >> (bit % 32)) & 1) << b);
    }
  }
  const std::size_t params = static_cast<std::size_t>(out) * (in / group);
  const mx::Shape shape{out, in / group};
  AffineWeights triple{
      mx::array(packed.begin(), {out, words}, mx::uint32),
      array_of(normal_values(params, random(), 0.1f), shape, dtype),
      array_of(normal_values(params, random(), 0.5f), shape, dtype)};
  std::vector<float> scales = values_of(triple.scales);
  std::vector<float> biases = values_of(triple.biases);
  return {
      out,
      in,
      bits,
      group,
      triple,
      std::move(codes),
      std::move(scales),
      std::move(biases)};
}

inline Matrix matrix_of(const AffineCase& c) {
  return kernels::cpu_device().quantized(
      c.triple.weight, c.triple.scales, c.triple.biases, c.bits, c.group);
}

/** Value and error bound of one element, in double. */
struct Expected {
  double value = 0;
  double bound = 0;
};

/** y[n] for one row of x. Each value is off by at most half a step of its unit;
 * then a unit costs two float multiply-adds, a product and (two digits) one
 * rounding of the integer sum, each rounding at most the sum of magnitudes. */
inline Expected
expect_affine(const AffineCase& c, const float* x, int n, Compute compute) {
  const double most = compute == Compute::Int8 ? 127 : 32639;
  const int unit = std::min(c.group, 64);
  Expected e;
  double magnitude = 0;
  for (int u = 0; u < c.in / unit; ++u) {
    double peak = 0;
    for (int k = u * unit; k < (u + 1) * unit; ++k) {
      peak = std::max(peak, std::fabs(static_cast<double>(x[k])));
    }
    // Half a step, and what x * (most / peak) itself rounds.
    const double off = peak / most * (0.5 + 4 * kEps * most);
    for (int k = u * unit; k < (u + 1) * unit; ++k) {
      e.value += c.weight(n, k) * x[k];
      e.bound += std::fabs(c.weight(n, k)) * off;
      magnitude +=
          (c.code(n, k) * std::fabs(c.scale(n, k)) + std::fabs(c.bias(n, k))) *
          (std::fabs(static_cast<double>(x[k])) + off);
    }
  }
  const double roundings = 2.0 * c.in / unit + 6;
  e.bound += roundings * kEps * magnitude;
  return e;
}

/** Restores the pool's size and the best SIMD target. */
struct MachineGuard {
  int threads = ThreadPool::shared().size();
  MachineGuard() = default;
  MachineGuard(const MachineGuard&) = delete;
  MachineGuard& operator=(const MachineGuard&) = delete;
  ~MachineGuard() {
    ThreadPool::shared().resize(threads);
    force_simd_target("");
  }
};

} // namespace optiq::kernels::test
