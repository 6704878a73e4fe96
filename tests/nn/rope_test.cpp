#include "optiq/nn/rope.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "optiq/io/array.h"
#include "optiq/kernels/kernels.h"

namespace optiq::nn {

namespace mx = mlx::core;
namespace {

// Values computed by mlx.nn.RoPE(traditional=False, base=1e4) in float32.
TEST(Rope, RotatesAsMlxDoes) {
  struct Case {
    int rotary_dim;
    float expected[8];
  };
  const Case cases[] = {
      {8,
       {-0.564480f,
        -0.522265f,
        1.819127f,
        2.978987f,
        -3.959970f,
        5.072203f,
        6.057291f,
        7.008968f}},
      {4, {-0.282240f, 0.909564f, -1.979985f, 3.028646f, 4, 5, 6, 7}}};
  for (const Case& c : cases) {
    mx::array x = io::make_array({1, 1, 8}, mx::float32);
    std::iota(io::mutable_floats(x).begin(), io::mutable_floats(x).end(), 0.f);
    const std::int32_t position[] = {3};
    const mx::array y =
        kernels::rope(x, position, rope_inverse_frequencies(1e4, c.rotary_dim));
    for (int i = 0; i < 8; ++i) {
      // Six printed decimals of values below 8.
      EXPECT_NEAR(io::floats(y)[i], c.expected[i], 2e-6f) << i;
    }
  }
}

// The rule of Llama 3.1 in the wavelengths it is stated in, in double.
TEST(Rope, StretchesLongWavelengthsAsLlama3Does) {
  constexpr double kTheta = 5e5;
  constexpr int kDim = 64;
  const RopeScaling scaling{
      .kind = RopeScaling::Kind::Llama3,
      .factor = 8,
      .low_freq_factor = 1,
      .high_freq_factor = 4,
      .original_positions = 8192};
  const auto scaled = rope_inverse_frequencies(kTheta, kDim, scaling);
  int kept = 0;
  int stretched = 0;
  for (int i = 0; i < kDim / 2; ++i) {
    const double period = std::pow(kTheta, 2.0 * i / kDim);
    const double wavelength = 2 * std::acos(-1.0) * period;
    double expected = 0;
    if (wavelength < 8192.0 / 4) {
      expected = 1 / period;
      ++kept;
    } else if (wavelength > 8192.0) {
      expected = 1 / period / 8;
      ++stretched;
    } else {
      const double smooth = (8192.0 / wavelength - 1) / (4 - 1);
      expected = (1 - smooth) / period / 8 + smooth / period;
    }
    // One rounding to float, and double's own.
    EXPECT_NEAR(scaled[i], expected, 1.01 * 0x1p-24 * expected) << i;
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(stretched, 0);
  EXPECT_LT(kept + stretched, kDim / 2);
}

TEST(Rope, DividesAllFrequenciesWhenLinear) {
  const auto plain = rope_inverse_frequencies(1e4, 8);
  const auto scaled = rope_inverse_frequencies(
      1e4, 8, {.kind = RopeScaling::Kind::Linear, .factor = 4});
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(scaled[i], plain[i] / 4); // a power of two: exact
  }
}

TEST(Rope, RotatesAShareOfThePairsWhenProportional) {
  const auto plain = rope_inverse_frequencies(1e6, 512);
  const auto scaled = rope_inverse_frequencies(
      1e6,
      512,
      {.kind = RopeScaling::Kind::Proportional,
       .factor = 2,
       .rotated_share = 0.25});
  ASSERT_EQ(scaled.size(), 256u);
  for (int i = 0; i < 256; ++i) {
    EXPECT_EQ(scaled[i], i < 64 ? plain[i] / 2 : 0.f) << i;
  }
}

} // namespace
} // namespace optiq::nn
