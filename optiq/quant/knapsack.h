#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

/** The multiple-choice knapsack: one option of every item, the least sum of
 * errors under a budget. */
namespace optiq::quant {

struct KnapsackOption {
  std::uint64_t cost = 0;
  double error = 0; // finite
};

/** Options by ascending cost and strictly falling error; at least one. */
using KnapsackItem = std::vector<KnapsackOption>;

/** Choices with less error than `incumbent`, if there are any, and what is
 * known of the least. */
struct KnapsackSolution {
  std::optional<std::vector<std::size_t>> choice; // per item
  /** No choice within the budget has less error. */
  double lower_bound = 0;
};

/**
 * Lagrangian relaxation and dynamic programming. With a price per cost every
 * item chooses by itself; what that adds up to, less the price of the budget,
 * is a bound, the best at the price where the choices fill the budget. An
 * option whose reduced error takes the bound over the incumbent is in no better
 * solution; of what remains all undominated sums are kept, item by item. Where
 * they are more than `max_sums`, the most promising are kept, and the bound
 * stays that of the relaxation; else the result is the optimum.
 */
KnapsackSolution improve_knapsack(
    std::span<const KnapsackItem> items,
    std::uint64_t budget,
    double incumbent,
    std::size_t max_sums = 2048);

} // namespace optiq::quant
