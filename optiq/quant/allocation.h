#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

/** Which item gets which of its options: a knapsack. Pure functions. */
namespace optiq::quant {

/** One width, in groups of one size, that a module may take. */
struct WidthOption {
  int bits = 0;
  std::uint64_t cost = 0; // in the unit of the budget: bytes or code bits
  double error = 0; // KL of this width alone, or a synthetic error
  int group_size = 0;
};

/** A module with its options, in any order; at least one. */
struct AllocationItem {
  std::string name;
  std::vector<WidthOption> options;
};

/** Chosen options and what they add up to. */
struct Allocation {
  std::vector<std::size_t> choice; // per item, index into its options
  std::uint64_t cost = 0;
  double error = 0;
  /** error - (the least error any allocation within the budget can have) is at
   * most this: 0 where the optimum was found, else what the relaxation leaves.
   */
  double gap_bound = 0;
};

/**
 * Minimizes the summed error under `budget`, never over it. Greedy on error
 * reduction per cost along each item's lower convex hull (a step may skip
 * widths), then fills the rest of the budget with the largest single
 * upgrades; what that leaves to the optimum is looked for by improve_knapsack.
 * A wider option that measured worse than a cheaper one is never taken. Ties go
 * to the earlier item. Throws InvalidInput, with the least possible cost, below
 * the floor.
 */
Allocation allocate(
    std::span<const AllocationItem> items,
    std::uint64_t budget);

/** Summed cost of the cheapest options. */
std::uint64_t least_cost(std::span<const AllocationItem> items);

} // namespace optiq::quant
