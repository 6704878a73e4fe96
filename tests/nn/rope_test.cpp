#include "optiq/nn/rope.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "optiq/io/array.h"
#include "optiq/kernels/cpu/operations.h"

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
    const mx::array y = kernels::cpu::rope(
        x, position, {rope_inverse_frequencies(1e4, c.rotary_dim)});
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
      .original_positions = 8192,
      .low_freq_factor = 1,
      .high_freq_factor = 4};
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

// The definition in section 3.2 of arXiv 2309.00071: a pair that turns r times
// within the trained positions keeps its frequency where r >= beta_fast, has it
// divided where r <= beta_slow; the blend between is linear in the pair's
// index, whose ends are rounded outwards.
TEST(Rope, BlendsAlongTheIndexAsYarnDoes) {
  constexpr double kTheta = 1e4;
  constexpr int kDim = 64;
  RopeScaling scaling{
      .kind = RopeScaling::Kind::Yarn, .factor = 4, .original_positions = 512};
  const auto turns = [&](double index) {
    return 512 * std::pow(kTheta, -2 * index / kDim) / (2 * std::acos(-1.0));
  };
  for (const bool rounds : {true, false}) {
    scaling.rounds_range = rounds;
    const auto scaled = rope_inverse_frequencies(kTheta, kDim, scaling);
    // Where turns() crosses the two betas, found by bisection.
    const auto index_of = [&](double wanted) {
      double low = 0;
      double high = kDim;
      for (int step = 0; step < 60; ++step) {
        const double middle = (low + high) / 2;
        (turns(middle) > wanted ? low : high) = middle;
      }
      return low;
    };
    const double begin = rounds ? std::floor(index_of(32)) : index_of(32);
    const double end = rounds ? std::ceil(index_of(1)) : index_of(1);
    for (int i = 0; i < kDim / 2; ++i) {
      const double divided =
          std::min(1.0, std::max(0.0, (i - begin) / (end - begin)));
      const double plain = std::pow(kTheta, -2.0 * i / kDim);
      const double expected = plain * (1 - divided) + plain / 4 * divided;
      EXPECT_NEAR(scaled[i], expected, 0x1p-22 * expected) << i;
    }
  }
}

TEST(Rope, DividesEveryFrequencyByItsOwnFactorInLongRope) {
  const auto plain = rope_inverse_frequencies(1e4, 8);
  const auto scaled = rope_inverse_frequencies(
      1e4, 8, {.kind = RopeScaling::Kind::LongRope, .divisors = {1, 2, 4, 8}});
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(scaled[i], plain[i] / static_cast<float>(1 << i));
  }
}

// Up to the trained positions nothing changes; from there on every token has
// the base of a text that ends with it.
TEST(Rope, GrowsItsBaseByThePositionWhenDynamic) {
  const kernels::Rope rope = make_rope(
      1e4,
      8,
      {.kind = RopeScaling::Kind::Dynamic,
       .factor = 2,
       .original_positions = 10});
  mx::array x = io::make_array({4, 1, 8}, mx::float32);
  std::iota(io::mutable_floats(x).begin(), io::mutable_floats(x).end(), 0.f);
  const std::vector<std::int32_t> positions{3, 9, 10, 25};
  const mx::array y = kernels::cpu::rope(x, positions, rope);
  for (int row = 0; row < 4; ++row) {
    const int p = positions[row];
    const double base =
        p < 10 ? 1e4 : 1e4 * std::pow(2.0 * (p + 1) / 10 - 1, 8.0 / 6);
    for (int i = 0; i < 4; ++i) {
      const double angle = p * std::pow(base, -2.0 * i / 8);
      const double a = row * 8 + i;
      const double b = a + 4;
      EXPECT_NEAR(
          io::floats(y)[row * 8 + i],
          a * std::cos(angle) - b * std::sin(angle),
          1e-4); // values up to 32, angles up to 25, 24 bits
    }
  }
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
