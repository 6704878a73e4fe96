#include "optiq/kernels/cuda/attention_plan.h"

#include <algorithm>

#include "optiq/kernels/kv_format.h"
#include "optiq/kernels/segment_checks.h"

namespace optiq::kernels::cuda {
namespace {

// Blocks of threads that keep a multiprocessor busy.
constexpr int kBlocksPerMultiprocessor = 4;
// Floats that partials of spans may take.
constexpr std::size_t kMostPartials = std::size_t{1} << 24;

/** Tiles of a segment, each with all its spans: of several whole rows, or of a
 * part of one row. */
void add_tiles(
    const Segment& segment,
    const AttentionLoad& load,
    AttentionPlan& plan) {
  const int group = load.n_heads / load.n_kv_heads;
  const int rows_per_tile = std::max(1, plan.tile_queries / group);
  const int queries_per_tile =
      std::min(rows_per_tile * group, plan.tile_queries);
  const auto first_block = static_cast<int>(plan.blocks.size());
  for (int row = 0; row < segment.rows; row += rows_per_tile) {
    const int end_row = std::min(row + rows_per_tile, segment.rows);
    const int seen = first_seen(load.window, segment.start + row);
    for (int at = row * group; at < end_row * group; at += queries_per_tile) {
      plan.items.push_back(
          {.first_row = segment.first_row,
           .start = segment.start,
           .first_block = first_block,
           .first_query = at,
           .n_queries = std::min(queries_per_tile, end_row * group - at),
           .first_span = seen / load.span_tokens,
           .last_span = (segment.start + end_row - 1) / load.span_tokens + 1,
           .slot = 0,
           .n_slots = 1,
           .tile = static_cast<int>(plan.items.size())});
    }
  }
  for (const BlockId block : segment.blocks) {
    plan.blocks.push_back(static_cast<unsigned long long>(block));
  }
  for (int row = 0; row < segment.rows; ++row) {
    const int token = segment.start + row;
    plan.row_blocks.push_back(static_cast<unsigned long long>(
        segment.blocks[token / kKvBlockTokens]));
  }
}

int spans_of(const AttendItem& item) {
  return item.last_span - item.first_span;
}

/** Each span of each tile by itself. */
void cut_into_spans(AttentionPlan& plan) {
  std::vector<AttendItem> cut;
  for (const AttendItem& tile : plan.items) {
    plan.slots = std::max(plan.slots, spans_of(tile));
    for (int span = tile.first_span; span < tile.last_span; ++span) {
      AttendItem item = tile;
      item.first_span = span;
      item.last_span = span + 1;
      item.slot = span - tile.first_span;
      item.n_slots = spans_of(tile);
      cut.push_back(item);
    }
  }
  plan.items = std::move(cut);
}

} // namespace

AttentionPlan plan_attention(
    std::span<const Segment> segments,
    const AttentionLoad& load) {
  const int group = load.n_heads / load.n_kv_heads;
  AttentionPlan plan;
  int most_queries = 0;
  std::size_t rows = 0;
  for (const Segment& segment : segments) {
    most_queries = std::max(most_queries, segment.rows * group);
    rows += segment.rows;
  }
  plan.tile_queries =
      most_queries <= kFewQueries ? kFewQueries : load.most_queries;
  for (const Segment& segment : segments) {
    add_tiles(segment, load, plan);
  }
  plan.tiles = plan.items.size();
  int most_spans = 0;
  for (const AttendItem& tile : plan.items) {
    most_spans = std::max(most_spans, spans_of(tile));
  }
  const std::size_t partials =
      rows * load.n_heads * most_spans * (load.head_dim + 2);
  const auto blocks = static_cast<int>(plan.items.size()) * load.n_kv_heads;
  if (blocks < kBlocksPerMultiprocessor * load.multiprocessors &&
      partials <= kMostPartials) {
    cut_into_spans(plan);
  }
  return plan;
}

} // namespace optiq::kernels::cuda
