#include "optiq/quant/plan_choice.h"

#include <cmath>

#include <gtest/gtest.h>

namespace optiq::quant {
namespace {

constexpr SizeRange kRange{1000, 9000};

/** Falls fourfold with every 1000 bytes, from 1 at the least. */
double kl_at(std::uint64_t bytes) {
  return std::pow(4.0, -static_cast<double>(bytes - kRange.low) / 1000);
}

TEST(SmallestSize, IsTheLeastThatMeetsTheTarget) {
  for (const double target : {0.9, 0.3, 0.01, 3e-5}) {
    const double exact = 1000 - 1000 * std::log(target) / std::log(4.0);
    for (const std::uint64_t guess : {0u, 1000u, 2500u, 9000u, 20000u}) {
      int n_asked = 0;
      const auto found =
          smallest_size(kRange, guess, 10, target, [&](std::uint64_t bytes) {
            EXPECT_GE(bytes, kRange.low);
            EXPECT_LE(bytes, kRange.high);
            ++n_asked;
            return kl_at(bytes);
          });
      ASSERT_TRUE(found);
      EXPECT_LE(kl_at(*found), target);
      EXPECT_LE(static_cast<double>(*found), exact + 11);
      EXPECT_LE(n_asked, 20) << target << " " << guess;
    }
  }
}

TEST(SmallestSize, TheEndsOfTheRange) {
  EXPECT_EQ(smallest_size(kRange, 5000, 10, 1, kl_at), kRange.low);
  EXPECT_FALSE(smallest_size(kRange, 5000, 10, 1e-9, kl_at));
  EXPECT_EQ(smallest_size({7, 7}, 0, 10, 1, [](auto) { return 0.5; }), 7u);
  EXPECT_FALSE(smallest_size({7, 7}, 0, 10, 1, [](auto) { return 1.5; }));
  // A KL of 0 has no logarithm.
  EXPECT_LE(
      *smallest_size(
          kRange, 9000, 10, 0.1, [](auto b) { return b < 4000 ? 1.0 : 0.0; }),
      4010u);
}

TEST(SmallestSize, WhereKlDoesNotFallTheTargetIsMetAllTheSame) {
  for (int phase = 0; phase < 10; ++phase) {
    const auto kl = [&](std::uint64_t bytes) {
      return kl_at(bytes) *
          (1 + 0.3 * std::sin(static_cast<double>(bytes) / 37 + phase));
    };
    const auto found = smallest_size(kRange, 3000, 10, 0.02, kl);
    ASSERT_TRUE(found);
    EXPECT_LE(kl(*found), 0.02);
  }
}

} // namespace
} // namespace optiq::quant
