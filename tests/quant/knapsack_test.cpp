#include "optiq/quant/knapsack.h"

#include <limits>
#include <random>

#include <gtest/gtest.h>

namespace optiq::quant {
namespace {

using Items = std::vector<KnapsackItem>;

constexpr double kNever = std::numeric_limits<double>::max();

double
brute_force(const Items& items, std::uint64_t budget, std::size_t at = 0) {
  if (at == items.size()) {
    return 0;
  }
  double best = std::numeric_limits<double>::infinity();
  for (const KnapsackOption& option : items[at]) {
    if (option.cost <= budget) {
      best = std::min(
          best,
          option.error + brute_force(items, budget - option.cost, at + 1));
    }
  }
  return best;
}

Items random_items(std::mt19937& random, int n, int n_options) {
  std::uniform_int_distribution<std::uint64_t> step(1, 9);
  std::uniform_real_distribution<double> share(0.1, 0.9);
  Items items;
  for (int i = 0; i < n; ++i) {
    KnapsackOption option{.cost = step(random), .error = share(random)};
    items.emplace_back();
    for (int o = 0; o < n_options; ++o) {
      items.back().push_back(option);
      option.cost += step(random);
      option.error *= share(random);
    }
  }
  return items;
}

struct Totals {
  std::uint64_t cost = 0;
  double error = 0;
};

Totals totals_of(const Items& items, const std::vector<std::size_t>& choice) {
  Totals totals;
  for (std::size_t i = 0; i < items.size(); ++i) {
    totals.cost += items[i][choice[i]].cost;
    totals.error += items[i][choice[i]].error;
  }
  return totals;
}

TEST(ImproveKnapsack, FindsTheOptimum) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const Items items = random_items(random, 1 + round % 6, 1 + round % 5);
    const std::uint64_t budget = 9 + random() % 60;
    const double best = brute_force(items, budget);
    const KnapsackSolution found = improve_knapsack(items, budget, kNever);
    ASSERT_EQ(found.choice.has_value(), best < kNever);
    if (!found.choice) {
      continue;
    }
    const Totals totals = totals_of(items, *found.choice);
    EXPECT_LE(totals.cost, budget);
    EXPECT_NEAR(totals.error, best, 1e-12 * best);
    EXPECT_NEAR(found.lower_bound, best, 1e-12 * best);
    // Nothing is better than it.
    EXPECT_FALSE(improve_knapsack(items, budget, best * (1 - 1e-12)).choice);
  }
}

TEST(ImproveKnapsack, WithFewSumsTheBoundStillHolds) {
  std::mt19937 random(2);
  for (int round = 0; round < 100; ++round) {
    const Items items = random_items(random, 6, 5);
    const std::uint64_t budget = 54 + random() % 60;
    const double best = brute_force(items, budget);
    const KnapsackSolution found = improve_knapsack(items, budget, kNever, 2);
    EXPECT_LE(found.lower_bound, best * (1 + 1e-12));
    if (found.choice) {
      const Totals totals = totals_of(items, *found.choice);
      EXPECT_LE(totals.cost, budget);
      EXPECT_GE(totals.error, best * (1 - 1e-12));
    }
  }
}

} // namespace
} // namespace optiq::quant
