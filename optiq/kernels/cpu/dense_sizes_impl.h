#pragma once

#include <cstddef>

namespace optiq::kernels::cpu {

/** Inputs that one chain of sums covers. */
inline constexpr int kDenseBlock = 1024;

/** Up to so many rows are computed straight from the weights. */
inline constexpr int kDenseDirectRows = 4;

// Beyond, float copies of 6 weight rows stay in L1 (24 KB), of 128 rows of x in
// L2 (512 KB): aligned and filled up with zeros to whole pairs of vectors.
// Their sums for 240 columns (130 KB) wait in L2 until all inputs are in. No
// stride is near a power of two: rows spread over the cache sets. 3, 9 or 12
// weight rows, and 32 or 64 of x, were slower.
inline constexpr int kDenseGroup = 6;
inline constexpr int kDenseXRows = 128;
inline constexpr std::size_t kDenseCopyStride = kDenseBlock + 16;
inline constexpr int kDenseCols = 240;
inline constexpr std::size_t kDenseSumStride = kDenseCols + 24;

} // namespace optiq::kernels::cpu
