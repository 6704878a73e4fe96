#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "optiq/kernels/cpu/attention.h"

namespace optiq::kernels::cpu {

// Queries (row x head of the group) of a tile: their sums and scores stay in
// L2 while a block of K or V stays in L1.
inline constexpr std::size_t kTileQueries = 96;

// What is rounded to int8 counts as zero below this: 1 / scale would overflow.
inline constexpr float kTiniestWeight = 1e-30f;

/** Where the scratch of a span lies, for n queries. */
struct SpanScratch {
  float* scores; // [n][256]
  float* block; // [64 * head_dim], keys or values as float32
  std::uint8_t* codes; // a tile of the codes of keys or values
  std::size_t* positions; // [n], of the queries
  std::size_t* heads; // [n], of the queries, counted over all rows
  std::size_t stride; // floats between the sums of queries

  SpanScratch(const AttentionShape& shape, std::size_t n, float* memory)
      : scores(memory),
        block(scores + n * kSpanTokens),
        codes(reinterpret_cast<std::uint8_t*>(
            block + kBlockTokens * shape.layout.head_dim)),
        positions(reinterpret_cast<std::size_t*>(
            codes + kBlockTokens * most_dims(shape))),
        heads(positions + n),
        stride(round_up(shape.layout.head_dim, 16)) {}

  static std::size_t most_dims(const AttentionShape& shape) {
    return std::max(shape.layout.key.dims, shape.layout.value.dims);
  }
  static std::size_t floats(const AttentionShape& shape, std::size_t n) {
    // Whole cache lines: the ranks of a pool have theirs side by side.
    return round_up(
        n * kSpanTokens + kBlockTokens * shape.layout.head_dim +
            kBlockTokens * most_dims(shape) / 4 +
            2 * n * sizeof(std::size_t) / sizeof(float),
        16);
  }
};

} // namespace optiq::kernels::cpu
