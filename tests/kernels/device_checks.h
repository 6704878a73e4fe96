#pragma once

#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/kernel_checks.h"

#include "optiq/base/error.h"
#include "optiq/kernels/devices.h"
#include "optiq/kernels/mlx/mlx_device.h"

/** Two devices against each other, in Compute::Exact: MLX's against the CPU's,
 * or the one that OPTIQ_TEST_DEVICE names against MLX's, which is float32
 * throughout. */
namespace optiq::kernels {

inline Device& compared_device() {
  const char* name = std::getenv("OPTIQ_TEST_DEVICE");
  return name == nullptr ? mlx_device() : find_device(name);
}

using testing::kUnit;
using testing::normal_array;

/** How far a chain of n float32 operations may lead: its roundings add up like
 * the steps of a random walk. */
inline double chain_error(int n) {
  return 8 * std::sqrt(n) * kUnit;
}

inline Device& reference_device() {
  return &compared_device() == &mlx_device() ? cpu_device() : mlx_device();
}

/** Skips every test where the device to compare is not there. */
class ComparedDevice : public ::testing::Environment {
 public:
  void SetUp() override {
    try {
      compared_device();
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
  }
};
inline ::testing::Environment* const kComparedDevice =
    ::testing::AddGlobalTestEnvironment(new ComparedDevice);

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
  const std::vector<float> expected = c.run(reference_device());
  const double found = distance(c.run(compared_device()), expected);
  EXPECT_TRUE(found <= c.bound) << found << " against " << c.bound;
}

} // namespace optiq::kernels
