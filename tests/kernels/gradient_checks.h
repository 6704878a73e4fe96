#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "kernels/device_checks.h"
#include "support/kernel_checks.h"

#include "optiq/kernels/gradients.h"

/** Derivatives judged by central differences of the same function in double
 * precision. */
namespace optiq::kernels {

namespace mx = mlx::core;
using Doubles = std::vector<double>;
using Arrays = std::vector<mx::array>;

struct GradientCase {
  std::string name;
  Arrays inputs;
  mx::Shape output;
  /** y of the inputs' values. */
  std::function<Doubles(const std::vector<Doubles>&)> function;
  /** dL/d inputs of dL/dy, which lies on the device, as what comes back does.
   */
  std::function<Arrays(Device&, const mx::array& dy)> gradients;
  /** Float32 operations that follow each other on the way. */
  int chain = 100;
};

inline Doubles doubles_of(const mx::array& x) {
  const auto values = io::floats(x);
  return {values.begin(), values.end()};
}

inline double dot(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

inline std::vector<Doubles> input_values(const GradientCase& c) {
  std::vector<Doubles> x;
  for (const mx::array& array : c.inputs) {
    x.push_back(doubles_of(array));
  }
  return x;
}

/** <dy, f(x + h v)> by h, at h = 0: the error of the central difference is h^2
 * times a third derivative, 1e-8, and what y rounds, kRoundings. */
constexpr double kStep = 1e-4;
constexpr double kRoundings = 0x1p-50 / kStep;
inline double slope_along(
    const GradientCase& c,
    const Doubles& dy,
    std::size_t input,
    const Doubles& direction) {
  const auto at = [&](double step) {
    std::vector<Doubles> x = input_values(c);
    for (std::size_t i = 0; i < direction.size(); ++i) {
      x[input][i] += step * direction[i];
    }
    return dot(dy, c.function(x));
  };
  return (at(kStep) - at(-kStep)) / (2 * kStep);
}

/** The derivative along some directions of every input: off by no more than the
 * roundings of the chain, |dx| |v| chain_error. A wrong term is |dx| |v| by the
 * root of the number of elements: far more. */
inline void expect_gradients(const GradientCase& c, Device& device) {
  SCOPED_TRACE(c.name + " on " + device.name());
  const mx::array dy = testing::normal_array(c.output, 77);
  const Arrays found = c.gradients(device, device.upload(dy));
  ASSERT_EQ(found.size(), c.inputs.size());
  const Doubles y = c.function(input_values(c));
  const Doubles by_y = doubles_of(dy);
  const double rounding = kRoundings * std::sqrt(dot(y, y) * dot(by_y, by_y));
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].shape(), c.inputs[i].shape()) << i;
    const std::vector<float> values = on_host(device, found[i]);
    const Doubles dx(values.begin(), values.end());
    for (unsigned seed = 0; seed < 3; ++seed) {
      const Doubles v = doubles_of(
          testing::normal_array(c.inputs[i].shape(), 100 + 10 * i + seed));
      const double expected = slope_along(c, by_y, i, v);
      const double bound =
          chain_error(c.chain) * std::sqrt(dot(dx, dx) * dot(v, v)) +
          1e-7 * std::abs(expected) + rounding;
      EXPECT_NEAR(dot(dx, v), expected, bound)
          << "input " << i << ", direction " << seed;
    }
  }
}

/** On the CPU and by MLX, or on the device that OPTIQ_TEST_DEVICE names. */
inline void expect_gradients_on_all(const GradientCase& c) {
  if (&compared_device() == &mlx_device()) {
    testing::for_each_target([&] { expect_gradients(c, cpu_device()); });
  }
  expect_gradients(c, compared_device());
}

/** The same rule, its arrays on the device. */
inline AttentionRule on_device(Device& device, AttentionRule rule) {
  for (std::optional<mx::array>* norm :
       {&rule.q_norm, &rule.k_norm, &rule.v_norm}) {
    if (*norm) {
      *norm = device.upload(**norm);
    }
  }
  return rule;
}

/** The same bits with any number of threads. */
inline void expect_same_bits_at_any_threads(const GradientCase& c) {
  SCOPED_TRACE(c.name);
  const mx::array dy = testing::normal_array(c.output, 77);
  const auto run = [&](int threads) {
    const testing::Threads guard(threads);
    return c.gradients(cpu_device(), dy);
  };
  const Arrays expected = run(1);
  for (const int threads : {2, 5}) {
    const Arrays found = run(threads);
    for (std::size_t i = 0; i < found.size(); ++i) {
      EXPECT_TRUE(
          testing::same_bits(io::floats(found[i]), io::floats(expected[i])))
          << threads << " threads, input " << i;
    }
  }
}

} // namespace optiq::kernels
