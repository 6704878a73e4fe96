#pragma once

#include <span>
#include <string>

/** What MLX's affine format has: the one list of widths and group sizes. */
namespace optiq::artifacts {

inline constexpr int kAffineBits[] = {2, 3, 4, 5, 6, 8};
inline constexpr int kAffineGroupSizes[] = {32, 64, 128};
inline constexpr int kDefaultGroupSize = 64; // MLX's

/** In plans: the width of a matrix that is not quantized and stays as the
 * source has it. */
inline constexpr int kDenseBits = 16;

/** Whether a value is in one of the lists. */
bool is_one_of(std::span<const int> list, double value);

/** "2, 3, 4, 5, 6 or 8", for messages. */
std::string list_text(std::span<const int> list);

} // namespace optiq::artifacts
