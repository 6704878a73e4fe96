#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "optiq/kernels/attention.h"
#include "optiq/kernels/cuda/arguments.h"

namespace optiq::kernels::cuda {

/** How attention of one call is shared out over blocks of threads. */
struct AttentionPlan {
  std::vector<AttendItem> items; // of every kv head
  std::vector<unsigned long long> blocks; // of all segments
  std::vector<unsigned long long> row_blocks; // [T] of a row's own token
  int tile_queries = 0; // kFewQueries, or the most of the load
  int slots = 1; // the most partials of a row
  std::size_t tiles = 0; // that items are of
};

/** What a plan is made for. */
struct AttentionLoad {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int window = 0;
  int multiprocessors = 0;
  int most_queries = kTileQueries; // of a tile
  int span_tokens = kSpanTokens;
};

/**
 * Tiles of whole rows (or of some queries of one row, where more than a tile's
 * share a kv head). Few tiles are cut into spans, whose partials are added
 * behind; many go through their spans one after the other. Either way gives
 * the same bits.
 */
AttentionPlan plan_attention(
    std::span<const Segment> segments,
    const AttentionLoad& load);

} // namespace optiq::kernels::cuda
