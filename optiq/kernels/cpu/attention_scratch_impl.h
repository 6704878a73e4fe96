#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "optiq/kernels/cpu/attention.h"

namespace optiq::kernels::cpu {

// Queries (row x head of the group) of a tile: their sums and scores stay in
// L2 while a block of K or V stays in L1.
inline constexpr std::size_t kTileQueries = 96;

/** Where the scratch of a span lies, for n queries. */
struct SpanScratch {
  float* scores; // [n][256]
  float* block; // [64 * head_dim], keys or values as float32
  std::uint8_t* codes; // a tile of the codes of keys or values
  std::size_t stride; // floats between the sums of queries

  SpanScratch(const AttentionShape& shape, std::size_t n, float* memory)
      : scores(memory),
        block(scores + n * kSpanTokens),
        codes(reinterpret_cast<std::uint8_t*>(
            block + kBlockTokens * shape.layout.head_dim)),
        stride(round_up(shape.layout.head_dim, 16)) {}

  static std::size_t floats(const AttentionShape& shape, std::size_t n) {
    const std::size_t dims =
        std::max(shape.layout.key.dims, shape.layout.value.dims);
    // Whole cache lines: the ranks of a pool have theirs side by side.
    return round_up(
        n * kSpanTokens + kBlockTokens * shape.layout.head_dim +
            kBlockTokens * dims / 4,
        16);
  }
};

} // namespace optiq::kernels::cpu
