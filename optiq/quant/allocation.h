#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

/** Which module gets how many bits. Pure functions: no model, no files. */
namespace optiq::quant {

/** One width a module may take. */
struct WidthOption {
  int bits = 0;
  std::uint64_t cost = 0; // in the unit of the budget: bytes or code bits
  double error = 0; // KL of this width alone, or a synthetic error
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
   * most this: the gain of the first step that did not fit. */
  double gap_bound = 0;
};

/**
 * Minimizes the summed error under `budget`, never over it. Greedy on error
 * reduction per cost along each item's lower convex hull (a step may skip
 * widths), then fills the rest of the budget with the largest single
 * upgrades and with exchanges of two items. A wider option that measured worse
 * than a cheaper one is never taken. Ties go to the earlier item.
 * Throws InvalidInput, with the least possible cost, below the floor.
 */
Allocation allocate(
    std::span<const AllocationItem> items,
    std::uint64_t budget);

/** Summed cost of the cheapest options. */
std::uint64_t least_cost(std::span<const AllocationItem> items);

/**
 * Synthetic importance of a module in (0, 1] by its name and place among
 * n_blocks decoder blocks: embeddings, head, edges and attention first.
 */
double static_priority(const std::string& module, int n_blocks);

/** priority x parameters x 4^-bits. */
double static_error(double priority, std::uint64_t parameters, int bits);

/** Index after "layers." in a module's name, or -1. */
int block_index(const std::string& module);

/**
 * Per module: whether it is kept at the widest candidate. That are lm_head,
 * embeddings, the mixer (self_attn or linear_attn) of the first and the last
 * block, and the first and the last self_attn.
 */
std::vector<bool> protected_modules(std::span<const std::string> modules);

} // namespace optiq::quant
