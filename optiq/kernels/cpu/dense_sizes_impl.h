#pragma once

namespace optiq::kernels::cpu {

/** Inputs that one chain of sums covers. */
inline constexpr int kDenseBlock = 1024;

/** Up to so many rows are computed straight from the weights. */
inline constexpr int kDenseDirectRows = 2;

// Beyond, float copies of 6 weight rows stay in L1 (24 KB), of 128 rows of x in
// L2 (512 KB): aligned, filled up with zeros to whole pairs of vectors, and at
// a stride that spreads them over the cache sets.
inline constexpr int kDenseGroup = 6;
inline constexpr int kDenseXRows = 128;
inline constexpr int kDenseCopyStride = kDenseBlock + 16;

} // namespace optiq::kernels::cpu
