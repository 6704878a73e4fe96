#pragma once

#include <algorithm>
#include <cstddef>

#include "optiq/kernels/cpu/attention.h"

namespace optiq::kernels::cpu {

// Queries (row x head of the group) of a tile: their sums stay in L2 while a
// block of K and V stays in L1.
inline constexpr std::size_t kTileQueries = 96;
// Lanes kept per query for the denominator of the softmax.
inline constexpr std::size_t kSumLanes = 16;
// Rows of scores in flight, at most.
inline constexpr std::size_t kScoreRows = 8;

inline std::size_t round_to_line(std::size_t n) {
  return (n + 15) / 16 * 16;
}

/** Where a tile's scratch lies. N = queries of a full tile. */
struct AttentionScratch {
  float* query; // [N][stride], scaled
  float* sum; // [N][stride], weighted values so far
  float* denominator; // [N][kSumLanes]
  float* maximum; // [N]
  float* scores; // [kScoreRows][64]
  float* block; // [2][64 * head_dim], one block widened to float32
  std::size_t stride; // floats between queries

  AttentionScratch(const AttentionShape& shape, float* memory)
      : stride(round_to_line(shape.head_dim)) {
    const std::size_t n = attention_tile_rows(shape) * shape.group();
    query = memory;
    sum = query + n * stride;
    denominator = sum + n * stride;
    maximum = denominator + n * kSumLanes;
    scores = maximum + round_to_line(n);
    block = scores + kScoreRows * kBlockTokens;
  }
};

} // namespace optiq::kernels::cpu
