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
template <int kDigits>
struct alignas(64) SpanWeights {
  std::int8_t digits[kDigits][kSpanTokens];
  float after[16]; // lanes of what is added to the products
  float scale[kSpanBlocks]; // of the first digit
  std::int32_t before[kSpanBlocks][kDigits]; // what a place's sum begins with
};

/** Where the scratch of a span lies, for n queries. */
struct SpanScratch {
  float* scores; // [n][256]
  float* block; // [64 * head_dim], keys or values as float32
  std::uint8_t* codes; // a tile of the codes of keys or values, its planes
  std::byte* weights; // SpanWeights [n][groups of the values]
  std::size_t* positions; // [n], of the queries
  std::size_t* heads; // [n], of the queries, counted over all rows
  std::size_t stride; // floats between the sums of queries

  SpanScratch(const AttentionShape& shape, std::size_t n, float* memory)
      : scores(memory),
        block(scores + n * kSpanTokens),
        codes(reinterpret_cast<std::uint8_t*>(
            block + kBlockTokens * shape.layout.head_dim)),
        weights(reinterpret_cast<std::byte*>(codes + tile_bytes(shape))),
        positions(
            reinterpret_cast<std::size_t*>(weights + n * weight_bytes(shape))),
        heads(positions + n),
        stride(round_up(shape.layout.head_dim, 16)) {}

  template <int kDigits>
  SpanWeights<kDigits>* weights_of(std::size_t query, std::size_t groups)
      const {
    return reinterpret_cast<SpanWeights<kDigits>*>(weights) + query * groups;
  }
  static std::size_t tile_bytes(const AttentionShape& shape) {
    const std::size_t dims =
        std::max(shape.layout.key.dims, shape.layout.value.dims);
    return kBlockTokens * dims * shape.layout.digits();
  }
  /** Of a query. */
  static std::size_t weight_bytes(const AttentionShape& shape) {
    const KvSide& value = shape.layout.value;
    if (!value.packed()) {
      return 0;
    }
    return value.groups() *
        (shape.layout.exact ? sizeof(SpanWeights<kExactDigits>)
                            : sizeof(SpanWeights<1>));
  }
  static std::size_t floats(const AttentionShape& shape, std::size_t n) {
    // Whole cache lines: the ranks of a pool have theirs side by side.
    return round_up(
        n * kSpanTokens + kBlockTokens * shape.layout.head_dim +
            (tile_bytes(shape) + n * weight_bytes(shape)) / sizeof(float) +
            2 * n * sizeof(std::size_t) / sizeof(float),
        16);
  }
};

} // namespace optiq::kernels::cpu
