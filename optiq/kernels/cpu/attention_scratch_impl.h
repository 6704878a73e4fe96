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

/** A query's weights of a span for one group of the values' channels, as int8
 * digits. */
struct alignas(64) SpanWeights {
  std::int8_t digits[kSpanTokens];
  float after[16]; // lanes of what is added to the products
  float scale[kSpanBlocks]; // of a digit
  std::int32_t before[kSpanBlocks]; // added to the integer sums
};

/** Where the scratch of a span lies, for n queries. */
struct SpanScratch {
  float* scores; // [n][256]
  float* block; // [64 * head_dim], keys or values as float32
  std::uint8_t* codes; // a tile of the codes of keys or values
  SpanWeights* weights; // [n][groups of the values]
  std::size_t* positions; // [n], of the queries
  std::size_t* heads; // [n], of the queries, counted over all rows
  std::size_t stride; // floats between the sums of queries

  SpanScratch(const AttentionShape& shape, std::size_t n, float* memory)
      : scores(memory),
        block(scores + n * kSpanTokens),
        codes(reinterpret_cast<std::uint8_t*>(
            block + kBlockTokens * shape.layout.head_dim)),
        weights(reinterpret_cast<SpanWeights*>(
            codes + kBlockTokens * most_dims(shape))),
        positions(
            reinterpret_cast<std::size_t*>(weights + n * n_weights(shape))),
        heads(positions + n),
        stride(round_up(shape.layout.head_dim, 16)) {}

  static std::size_t most_dims(const AttentionShape& shape) {
    return std::max(shape.layout.key.dims, shape.layout.value.dims);
  }
  /** Groups that have weights as digits. */
  static std::size_t n_weights(const AttentionShape& shape) {
    const KvSide& value = shape.layout.value;
    return value.packed() && !shape.layout.exact ? value.groups() : 0;
  }
  static std::size_t floats(const AttentionShape& shape, std::size_t n) {
    // Whole cache lines: the ranks of a pool have theirs side by side.
    return round_up(
        n * kSpanTokens + kBlockTokens * shape.layout.head_dim +
            kBlockTokens * most_dims(shape) / 4 +
            n * n_weights(shape) * sizeof(SpanWeights) / sizeof(float) +
            2 * n * sizeof(std::size_t) / sizeof(float),
        16);
  }
};

} // namespace optiq::kernels::cpu
