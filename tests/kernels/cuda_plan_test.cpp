#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "optiq/kernels/cuda/attention_plan.h"
#include "optiq/kernels/kv_format.h"
#include "optiq/kernels/segment_checks.h"

namespace optiq::kernels::cuda {
namespace {

/** Blocks by number: no test reads one. */
std::vector<BlockId> numbered_blocks(int tokens, int first) {
  std::vector<BlockId> blocks;
  for (int i = 0; i <= tokens / kKvBlockTokens; ++i) {
    blocks.push_back(static_cast<BlockId>(first + i));
  }
  return blocks;
}

/** What items do to (row, head of the kv head): the spans, in order. */
std::map<std::pair<int, int>, std::vector<int>> spans_by_query(
    const AttentionPlan& plan,
    int group) {
  std::map<std::pair<int, int>, std::vector<int>> spans;
  for (const AttendItem& item : plan.items) {
    EXPECT_LE(item.n_queries, plan.tile_queries);
    EXPECT_LT(item.first_span, item.last_span);
    for (int i = 0; i < item.n_queries; ++i) {
      const int query = item.first_query + i;
      auto& found = spans[{item.first_row + query / group, query % group}];
      EXPECT_EQ(item.slot, static_cast<int>(found.size()));
      for (int span = item.first_span; span < item.last_span; ++span) {
        found.push_back(span);
      }
      if (item.last_span - item.first_span > 1) {
        EXPECT_EQ(item.slot, 0); // a tile that is not cut
      }
    }
  }
  return spans;
}

/** That the items of a tile know how many they are. */
void expect_counted_tiles(const AttentionPlan& plan) {
  std::map<int, int> items;
  for (const AttendItem& item : plan.items) {
    ++items[item.tile];
    EXPECT_LT(item.slot, item.n_slots);
    EXPECT_LE(item.n_slots, plan.slots);
  }
  EXPECT_EQ(items.size(), plan.tiles);
  for (const AttendItem& item : plan.items) {
    EXPECT_EQ(items.at(item.tile), item.n_slots);
  }
}

void expect_every_query_once(
    std::span<const Segment> segments,
    const AttentionLoad& load) {
  const AttentionPlan plan = plan_attention(segments, load);
  const int group = load.n_heads / load.n_kv_heads;
  const auto spans = spans_by_query(plan, group);
  expect_counted_tiles(plan);
  std::size_t queries = 0;
  for (const Segment& segment : segments) {
    for (int row = 0; row < segment.rows; ++row) {
      const int position = segment.start + row;
      const int batch_row = segment.first_row + row;
      EXPECT_EQ(
          plan.row_blocks[batch_row],
          static_cast<unsigned long long>(segment.blocks[position / 64]));
      for (int head = 0; head < group; ++head) {
        const std::vector<int>& found = spans.at({batch_row, head});
        ++queries;
        // Each once, in order, and all that the row sees.
        EXPECT_TRUE(std::is_sorted(found.begin(), found.end()));
        EXPECT_EQ(
            std::set<int>(found.begin(), found.end()).size(), found.size());
        EXPECT_LE(
            found.front(),
            first_seen(load.window, position) / load.span_tokens);
        EXPECT_GE(found.back(), position / load.span_tokens);
      }
    }
  }
  EXPECT_EQ(spans.size(), queries);
}

TEST(CudaAttentionPlan, SharesEveryQueryOutOnce) {
  const auto a = numbered_blocks(3000, 100);
  const auto b = numbered_blocks(700, 1000);
  for (const int group : {1, 3, 4, 16, 20, 40}) {
    for (const int window : {0, 300}) {
      for (const int multiprocessors : {1, 132}) {
        AttentionLoad load{
            .n_heads = 2 * group,
            .n_kv_heads = 2,
            .head_dim = 64,
            .window = window,
            .multiprocessors = multiprocessors};
        const std::vector<Segment> decode{
            {.first_row = 0, .rows = 1, .start = 2999, .blocks = a},
            {.first_row = 1, .rows = 0, .start = 0, .blocks = b},
            {.first_row = 1, .rows = 1, .start = 5, .blocks = b}};
        expect_every_query_once(decode, load);
        const std::vector<Segment> mixed{
            {.first_row = 0, .rows = 37, .start = 490, .blocks = a},
            {.first_row = 37, .rows = 2, .start = 640, .blocks = b}};
        expect_every_query_once(mixed, load);
        load.most_queries = 8; // as attention_decode.cu wants it
        load.span_tokens = 512;
        expect_every_query_once(decode, load);
        expect_every_query_once(mixed, load);
      }
    }
  }
}

TEST(CudaAttentionPlan, CutsFewTilesAndKeepsManyWhole) {
  const auto blocks = numbered_blocks(4096, 1);
  const auto slots_at = [&](int multiprocessors) {
    const Segment segment{.rows = 1, .start = 4095, .blocks = blocks};
    return plan_attention(
               {&segment, 1},
               {.n_heads = 8,
                .n_kv_heads = 8,
                .head_dim = 64,
                .multiprocessors = multiprocessors})
        .slots;
  };
  EXPECT_EQ(slots_at(132), 16);
  EXPECT_EQ(slots_at(2), 1);
}

} // namespace
} // namespace optiq::kernels::cuda
