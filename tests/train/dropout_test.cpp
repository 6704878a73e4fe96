#include "optiq/train/dropout.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "optiq/io/array.h"
#include "optiq/kernels/devices.h"

namespace optiq::train {
namespace {

constexpr int kRows = 60;
constexpr int kWidth = 301; // not a multiple of what is drawn at once

std::vector<float> mask_of(
    const DropoutOptions& options,
    std::uint64_t module,
    int first = 0,
    int rows = kRows) {
  const mx::array a = mx::zeros({1, kWidth}, mx::float32);
  mx::array ones = mx::ones({rows, kWidth}, mx::float32);
  mx::eval(ones);
  Dropout dropout(options);
  dropout.add_module(a, module);
  const mx::array dropped =
      dropout.apply(kernels::cpu_device(), ones, a, first);
  const auto values = io::floats(dropped);
  return {values.begin(), values.end()};
}

TEST(Dropout, DropsTheRateAndScalesTheRest) {
  for (const float rate : {0.1f, 0.5f, 0.9f}) {
    double dropped = 0;
    const auto mask = mask_of({.rate = rate, .seed = 3}, 0);
    for (const float value : mask) {
      EXPECT_TRUE(value == 0.f || value == 1.f / (1.f - rate)) << value;
      dropped += value == 0.f ? 1 : 0;
    }
    const auto n = static_cast<double>(mask.size());
    // Five standard deviations of a binomial share.
    const double bound = 5 * std::sqrt(double{rate} * (1 - double{rate}) / n);
    EXPECT_NEAR(dropped / n, double{rate}, bound);
  }
}

TEST(Dropout, FollowsFromSeedModuleAndPlaceAlone) {
  const DropoutOptions options{.rate = 0.5f, .seed = 3};
  const auto mask = mask_of(options, 1);
  EXPECT_EQ(mask, mask_of(options, 1));
  EXPECT_NE(mask, mask_of(options, 2));
  EXPECT_NE(mask, mask_of({.rate = 0.5f, .seed = 4}, 1));
  const auto rows = mask_of(options, 1, 7, 5);
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(), mask.begin() + 7 * kWidth));
  for (int row = 1; row < kRows; ++row) { // none repeats the first
    EXPECT_FALSE(std::equal(
        mask.begin(), mask.begin() + kWidth, mask.begin() + row * kWidth));
  }
}

} // namespace
} // namespace optiq::train
