#pragma once

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/kernel_checks.h"

#include "optiq/kernels/device.h"
#include "optiq/kernels/mlx/mlx_device.h"

/** The MLX device against the CPU's, in float32. */
namespace optiq::kernels {

using testing::kUnit;
using testing::normal_array;

/** How far a chain of n float32 operations may lead: its roundings add up like
 * the steps of a random walk. */
inline double chain_error(int n) {
  return 8 * std::sqrt(n) * kUnit;
}

/** Something to run on both devices, and how far their results may be apart:
 * |a - b| / |b| in the euclidean norm. */
struct DeviceCase {
  std::string name;
  std::function<std::vector<float>(Device&)> run;
  double bound = 0;
};

inline std::vector<float> on_host(Device& device, const mx::array& x) {
  const HostRows rows = device.to_host(x);
  return {rows.all().begin(), rows.all().end()};
}

/** |a - b| / |b|; infinite for other sizes, NaN where one of them is. */
inline double distance(
    const std::vector<float>& a,
    const std::vector<float>& b) {
  if (a.size() != b.size()) {
    return INFINITY;
  }
  double difference = 0;
  double size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{b[i]} * b[i];
  }
  return difference == 0 ? 0 : std::sqrt(difference / size);
}

inline void expect_same_on_both(const DeviceCase& c) {
  SCOPED_TRACE(c.name);
  const std::vector<float> expected = c.run(cpu_device());
  const double found = distance(c.run(mlx_device()), expected);
  EXPECT_TRUE(found <= c.bound) << found << " against " << c.bound;
}

} // namespace optiq::kernels
