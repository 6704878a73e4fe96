#include "optiq/quant/allocation.h"

#include <cmath>
#include <limits>
#include <random>

#include <gtest/gtest.h>

#include "optiq/base/error.h"

namespace optiq::quant {
namespace {

using Items = std::vector<AllocationItem>;

/** The least error within the budget, by trying everything. */
double brute_force(const Items& items, std::uint64_t budget, std::size_t at) {
  if (at == items.size()) {
    return 0;
  }
  double best = std::numeric_limits<double>::infinity();
  for (const WidthOption& option : items[at].options) {
    if (option.cost <= budget) {
      best = std::min(
          best,
          option.error + brute_force(items, budget - option.cost, at + 1));
    }
  }
  return best;
}

/** Random costs and errors; falling with noise, so that inversions occur. */
Items random_items(std::mt19937& random, std::size_t n, std::size_t widths) {
  std::uniform_int_distribution<int> size(1, 40);
  std::lognormal_distribution<double> scale(0, 2);
  std::normal_distribution<double> noise(0, 0.3);
  Items items;
  for (std::size_t i = 0; i < n; ++i) {
    AllocationItem item{.name = std::to_string(i), .options = {}};
    const int parameters = size(random);
    const double error = scale(random);
    for (std::size_t w = 0; w < widths; ++w) {
      const int bits = static_cast<int>(w) + 2;
      item.options.push_back(
          {bits,
           static_cast<std::uint64_t>(parameters * bits),
           error * std::exp2(-2.0 * bits) * std::exp(noise(random))});
    }
    items.push_back(item);
  }
  return items;
}

TEST(Allocate, NeverOverBudgetAndWithinItsBoundOfTheOptimum) {
  std::mt19937 random(1);
  double error_sum = 0;
  double best_sum = 0;
  for (int round = 0; round < 300; ++round) {
    const std::size_t n = 1 + round % 6;
    const Items items = random_items(random, n, 1 + round % 4);
    const std::uint64_t floor = least_cost(items);
    const std::uint64_t budget = floor + random() % (floor + 1);
    const Allocation found = allocate(items, budget);
    EXPECT_LE(found.cost, budget);
    std::uint64_t cost = 0;
    double error = 0;
    for (std::size_t i = 0; i < n; ++i) {
      cost += items[i].options[found.choice[i]].cost;
      error += items[i].options[found.choice[i]].error;
    }
    EXPECT_EQ(cost, found.cost);
    EXPECT_DOUBLE_EQ(error, found.error);
    const double best = brute_force(items, budget, 0);
    // Sums of at most 6 terms: a relative 6 eps of slack.
    EXPECT_LE(error - best, found.gap_bound + 6 * 2.3e-16 * error);
    EXPECT_GE(error, best * (1 - 6 * 2.3e-16));
    error_sum += error / best;
    best_sum += 1;
    // Few enough sums: the optimum, and known to be.
    EXPECT_EQ(found.gap_bound, 0);
    EXPECT_LE(error, best * (1 + 1e-12));
  }
  EXPECT_LT(error_sum / best_sum, 1.004);
}

// As many matrices as a model of 0.75 B weights has, at 6 widths in groups of 3
// sizes: the bound stays within a thousandth although not all sums are kept.
TEST(Allocate, IsWithinAThousandthOfTheBoundOnAWholeModel) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> size(64, 4096);
  std::lognormal_distribution<double> scale(-8, 2);
  std::normal_distribution<double> noise(0, 0.05);
  Items items;
  for (int i = 0; i < 187; ++i) {
    AllocationItem item{.name = std::to_string(i), .options = {}};
    const std::uint64_t parameters = std::uint64_t{1024} * size(random);
    const double error = scale(random);
    for (const int bits : {2, 3, 4, 5, 6, 8}) {
      for (const int group : {32, 64, 128}) {
        item.options.push_back(
            {bits,
             parameters * bits / 8 + parameters / group * 4,
             error * std::exp2(-2.0 * bits) * std::log(group) *
                 std::exp(noise(random)),
             group});
      }
    }
    items.push_back(item);
  }
  const std::uint64_t floor = least_cost(items);
  for (const double factor : {1.1, 1.5, 2.0}) {
    const auto budget =
        static_cast<std::uint64_t>(factor * static_cast<double>(floor));
    const Allocation found = allocate(items, budget);
    EXPECT_LE(found.cost, budget);
    EXPECT_LE(found.gap_bound, 1e-3 * found.error) << factor;
  }
}

TEST(Allocate, EverythingFitsIntoALargeBudget) {
  std::mt19937 random(2);
  const Items items = random_items(random, 20, 3);
  const Allocation found = allocate(items, 1u << 30);
  EXPECT_EQ(found.gap_bound, 0);
  double least = 0;
  for (const AllocationItem& item : items) {
    double best = std::numeric_limits<double>::infinity();
    for (const WidthOption& option : item.options) {
      best = std::min(best, option.error);
    }
    least += best;
  }
  EXPECT_DOUBLE_EQ(found.error, least);
}

TEST(Allocate, TheBudgetGoesWhereTheErrorIs) {
  Items items;
  for (int i = 0; i < 8; ++i) {
    const double error = i == 5 ? 1.0 : 0.001;
    items.push_back({std::to_string(i), {{4, 400, error}, {8, 800, 1e-6}}});
  }
  const Allocation found = allocate(items, 8 * 400 + 400);
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(found.choice[i], i == 5 ? 1u : 0u) << i;
  }
  EXPECT_EQ(found.cost, 3600u);
}

TEST(Allocate, AStepMaySkipAWidthWithoutGain) {
  const Items items = {{"a", {{2, 200, 1.0}, {3, 300, 1.0}, {4, 400, 0.1}}}};
  EXPECT_EQ(allocate(items, 400).choice[0], 2u);
  EXPECT_EQ(allocate(items, 399).choice[0], 0u);
}

TEST(Allocate, AnInversionIsNoBenefit) {
  // Wider measured worse by noise: the narrow width stays, however large the
  // budget.
  const Items items = {{"a", {{4, 400, 1e-5}, {8, 800, 3e-5}}}};
  EXPECT_EQ(allocate(items, 10'000).choice[0], 0u);
}

TEST(Allocate, TiesGoToTheEarlierItem) {
  Items items;
  for (int i = 0; i < 4; ++i) {
    items.push_back({std::to_string(i), {{4, 4, 1.0}, {8, 8, 0.5}}});
  }
  const Allocation found = allocate(items, 16 + 8);
  EXPECT_EQ(found.choice, (std::vector<std::size_t>{1, 1, 0, 0}));
}

TEST(Allocate, BelowTheFloorTheMessageNamesTheLeastCost) {
  const Items items = {
      {"a", {{4, 400, 1.0}, {8, 800, 0.5}}}, {"b", {{4, 40, 1.0}}}};
  EXPECT_EQ(least_cost(items), 440u);
  EXPECT_EQ(allocate(items, 440).cost, 440u);
  try {
    allocate(items, 439);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::InvalidInput);
    EXPECT_NE(std::string(e.what()).find("440"), std::string::npos);
  }
}

} // namespace
} // namespace optiq::quant
