#include "optiq/eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include <gtest/gtest.h>

namespace optiq::eval {
namespace {

// Sums of n values of size about 1 in double: relative error below n * eps.
double tolerance(std::size_t n) {
  return 4.0 * static_cast<double>(n) * std::numeric_limits<double>::epsilon();
}

TEST(Mean, MatchesTheTextbook) {
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal(0.5, 2);
  for (const std::size_t n : {2u, 3u, 100u}) {
    std::vector<double> x(n);
    std::generate(x.begin(), x.end(), [&] { return normal(random); });
    long double sum = 0;
    for (const double v : x) {
      sum += v;
    }
    const long double m = sum / n;
    long double squares = 0;
    for (const double v : x) {
      squares += (v - m) * (v - m);
    }
    const long double error = std::sqrt(squares / (n - 1) / n);
    const Estimate estimate = mean(x);
    EXPECT_NEAR(estimate.value, m, 10 * tolerance(n));
    EXPECT_NEAR(estimate.standard_error, error, 10 * tolerance(n));
  }
}

TEST(Mean, OneSampleHasNoError) {
  const std::vector<double> one{3.5};
  EXPECT_EQ(mean(one).value, 3.5);
  EXPECT_EQ(mean(one).standard_error, 0);
}

TEST(RatioOfSums, WeighsRowsByTheirCounts) {
  const std::vector<double> sums{10, 1};
  const std::vector<double> counts{5, 1};
  const Estimate ratio = ratio_of_sums(sums, counts);
  EXPECT_DOUBLE_EQ(ratio.value, 11.0 / 6);
  // Residuals 10 - 5 r = 5/6 and 1 - r = -5/6.
  const double squares = 2 * (5.0 / 6) * (5.0 / 6);
  EXPECT_DOUBLE_EQ(ratio.standard_error, std::sqrt(2 * squares) / 6);
}

TEST(RatioOfSums, ErrorIsThatOfRepeatedDraws) {
  // 1000 draws of 60 rows whose tokens share a row effect. The standard
  // deviation of a deviation estimated from k draws is sigma / sqrt(2 k):
  // 2.2 %. The linearization itself is biased low by about 1/n = 1.7 %; four
  // sigma and two biases make 12 %. A per-token error would be off by 3x.
  std::mt19937_64 random(7);
  std::normal_distribution<double> effect(1, 0.5);
  std::normal_distribution<double> noise(0, 0.1);
  std::uniform_int_distribution<int> length(5, 40);
  std::vector<double> ratios;
  double mean_error = 0;
  constexpr int kDraws = 1000;
  for (int draw = 0; draw < kDraws; ++draw) {
    std::vector<double> sums;
    std::vector<double> counts;
    for (int row = 0; row < 60; ++row) {
      const int n = length(random);
      const double row_effect = effect(random);
      double sum = 0;
      for (int i = 0; i < n; ++i) {
        sum += row_effect + noise(random);
      }
      sums.push_back(sum);
      counts.push_back(n);
    }
    const Estimate estimate = ratio_of_sums(sums, counts);
    ratios.push_back(estimate.value);
    mean_error += estimate.standard_error / kDraws;
  }
  const double spread =
      mean(ratios).standard_error * std::sqrt(static_cast<double>(kDraws));
  EXPECT_NEAR(mean_error / spread, 1.0, 0.12);
}

TEST(Proportion, Binomial) {
  EXPECT_DOUBLE_EQ(proportion(3, 4).value, 0.75);
  EXPECT_DOUBLE_EQ(proportion(3, 4).standard_error, std::sqrt(0.75 * 0.25 / 4));
  EXPECT_EQ(proportion(0, 5).standard_error, 0);
  EXPECT_EQ(proportion(5, 5).standard_error, 0);
}

TEST(Quantile, MatchesSorting) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (const std::size_t n : {1u, 2u, 3u, 100u, 101u}) {
    std::vector<double> x(n);
    std::generate(x.begin(), x.end(), [&] { return uniform(random); });
    std::vector<double> sorted = x;
    std::sort(sorted.begin(), sorted.end());
    for (const double q : {0.0, 0.01, 0.5, 0.99, 1.0}) {
      const double at = q * static_cast<double>(n - 1);
      const auto low = static_cast<std::size_t>(std::floor(at));
      const std::size_t high = std::min(low + 1, n - 1);
      const double expected =
          sorted[low] + (at - std::floor(at)) * (sorted[high] - sorted[low]);
      EXPECT_NEAR(quantile(x, q), expected, tolerance(1)) << n << " " << q;
    }
  }
  EXPECT_EQ(quantile({1, 2}, 0.5), 1.5);
}

} // namespace
} // namespace optiq::eval
