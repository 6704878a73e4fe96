#include "optiq/kernels/cpu/attention.h"

#include <algorithm>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/attention.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/highway.h"

#include "optiq/kernels/cpu/amx_attention.h"
#include "optiq/kernels/cpu/attention_scratch_impl.h"
#include "optiq/kernels/cpu/attention_span-inl.h"
#include "optiq/kernels/cpu/dense_attention-inl.h"
#include "optiq/kernels/cpu/packed_span-inl.h"
#include "optiq/kernels/cpu/softmax-inl.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {
namespace {

template <class Cell>
HWY_INLINE void ScoreDense(
    const SpanWork& work,
    std::size_t block,
    const Cell* keys,
    const std::byte* next) {
  const std::size_t dim = work.shape.layout.head_dim;
  ForGroups<kMaxQueries>(work, block, [&](const Group& group) HWY_ATTR {
    Rows<Cell> rows;
    std::size_t most = 0;
    for (std::size_t r = 0; r < group.n; ++r) {
      const std::size_t query = group.begin + r;
      const std::size_t at = work.head(query) * dim;
      if constexpr (std::is_same_v<Cell, float>) {
        rows.left[r] = work.queries.values + at;
      } else {
        rows.left[r] = reinterpret_cast<const Cell*>(work.queries.halves + at);
      }
      rows.out[r] = work.scores(query, block);
      most = std::max(most, group.seen[r].end);
    }
    const Right<Cell> right{
        keys, kBlockTokens, group.begin == 0 ? next : nullptr};
    WithCount<kMaxQueries>(group.n, [&](auto count) HWY_ATTR {
      DenseScores<count()>(rows, most, dim, right);
    });
  });
}

template <class Cell>
HWY_INLINE void AddDense(
    const SpanWork& work,
    std::size_t block,
    const Cell* values,
    const std::byte* next) {
  const std::size_t dim = work.shape.layout.head_dim;
  ForGroups<kMaxQueries>(work, block, [&](const Group& group) HWY_ATTR {
    Rows<Cell> rows;
    for (std::size_t r = 0; r < group.n; ++r) {
      rows.left[r] = work.weights<Cell>(group.begin + r, block);
      rows.out[r] = work.sum(group.begin + r);
    }
    const Right<Cell> right{values, dim, group.begin == 0 ? next : nullptr};
    WithCount<kMaxQueries>(group.n, [&](auto count) HWY_ATTR {
      DenseValues<count()>(rows, group.seen, dim, right);
    });
  });
}

/** Scores of bfloat16 keys on tiles. */
void ScoreTiles(
    const SpanWork& work,
    std::size_t block,
    const std::byte* next) {
  constexpr std::size_t kTogether = 64;
  const std::size_t dim = work.shape.layout.head_dim;
  const std::uint16_t* queries[kTogether];
  for (std::size_t begin = 0; begin < work.n; begin += kTogether) {
    const std::size_t n = std::min(kTogether, work.n - begin);
    for (std::size_t r = 0; r < n; ++r) {
      queries[r] = work.queries.halves + work.head(begin + r) * dim;
    }
    score_tiles(
        {.queries = queries,
         .n = n,
         .head_dim = dim,
         .keys = work.keys(block),
         .scores = work.scores(begin, block),
         .stride = kSpanTokens,
         .next = begin == 0 ? next : nullptr},
        work.tiles);
  }
}

/** Adds bfloat16 values on tiles. A weight of zero hides a token that a query
 * does not see, unless it is not finite. */
void AddTiles(const SpanWork& work, std::size_t block, const std::byte* next) {
  const std::size_t dim = work.shape.layout.head_dim;
  const bool at_once =
      work.all_see(block) || all_finite(work.values(block), dim);
  ValueTiles tiles{
      .weight_stride = kSpanTokens * sizeof(float) / sizeof(BF16),
      .n = at_once ? work.n : 1,
      .head_dim = dim,
      .values = work.values(block),
      .stride = work.scratch.stride,
      .next = next};
  for (std::size_t query = 0; query < work.n; query += tiles.n) {
    tiles.weights = reinterpret_cast<const std::uint16_t*>(
        work.weights<BfPair>(query, block));
    tiles.sums = work.sum(query);
    if (!at_once) {
      const Tokens seen = work.seen(query, block * kBlockTokens, kBlockTokens);
      auto* const copy = reinterpret_cast<std::byte*>(work.scratch.block);
      copy_tokens(work.values(block), dim, seen.begin, seen.end, copy);
      tiles.values = copy;
    }
    add_value_tiles(tiles, work.tiles);
  }
}

/** Scores of all queries with a dense block; fetches `next`. */
HWY_INLINE void
ScoreBlock(const SpanWork& work, std::size_t block, const std::byte* next) {
  const KvSide& side = work.shape.layout.key;
  const std::byte* keys = work.keys(block);
  FetchRest(side, work.shape.layout.value, next);
  float* wide = work.scratch.block;
  if (side.code == KvCode::Float32) {
    ScoreDense(work, block, reinterpret_cast<const float*>(keys), next);
  } else {
    const auto* pairs = reinterpret_cast<const BfPair*>(keys);
    if (work.shape.layout.dots(side) && attends_on_tiles(side.head_dim)) {
      ScoreTiles(work, block, next);
    } else if (work.shape.layout.dots(side)) {
      ScoreDense(work, block, pairs, next);
    } else {
      WidenPairs(pairs, side.head_dim / 2, kBlockTokens, wide);
      ScoreDense<float>(work, block, wide, nullptr);
    }
  }
}

/** Adds the weighted values of a dense block; fetches `next`. */
HWY_INLINE void
AddBlock(const SpanWork& work, std::size_t block, const std::byte* next) {
  const KvSide& side = work.shape.layout.value;
  const std::byte* values = work.values(block);
  FetchRest(side, work.shape.layout.key, next);
  float* wide = work.scratch.block;
  if (side.code == KvCode::Float32) {
    AddDense(work, block, reinterpret_cast<const float*>(values), next);
  } else {
    const auto* pairs = reinterpret_cast<const BfPair*>(values);
    if (work.shape.layout.dots(side) && attends_on_tiles(side.head_dim)) {
      AddTiles(work, block, next);
    } else if (work.shape.layout.dots(side)) {
      AddDense(work, block, pairs, next);
    } else {
      WidenPairs(pairs, kBlockTokens / 2, side.head_dim, wide);
      AddDense<float>(work, block, wide, nullptr);
    }
  }
}

HWY_INLINE void ScoreSpan(const SpanWork& work) {
  if (work.shape.layout.key.packed()) {
    if (work.shape.layout.exact) {
      ScorePacked<kExactDigits>(work);
    } else {
      ScorePacked<1>(work);
    }
    return;
  }
  for (std::size_t b = work.first_block; b < work.last_block; ++b) {
    ScoreBlock(work, b, work.after_keys(b));
  }
}

HWY_INLINE void AddSpan(const SpanWork& work) {
  if (work.shape.layout.value.packed()) {
    if (work.shape.layout.exact) {
      AddPacked<kExactDigits>(work);
    } else {
      AddPacked<1>(work);
    }
    return;
  }
  for (std::size_t b = work.first_block; b < work.last_block; ++b) {
    AddBlock(work, b, work.after_values(b));
  }
}

/** Turns the scores of a span into weights. A few queries at a time look for
 * their largest score first: exp waits for it. */
template <class Weight>
HWY_INLINE void WeighSpan(const SpanWork& work) {
  constexpr std::size_t kTogether = 8;
  const F32 d;
  const std::size_t tokens =
      (work.last_block - work.first_block) * kBlockTokens;
  for (std::size_t begin = 0; begin < work.n; begin += kTogether) {
    const std::size_t end = std::min(work.n, begin + kTogether);
    for (std::size_t query = begin; query < end; ++query) {
      const Tokens seen = work.seen(query, work.first_token, tokens);
      if (work.shape.softcap > 0.0f) {
        CapScores(
            d, work.scores(query, work.first_block), seen, work.shape.softcap);
      }
      work.to.maximum[query] =
          MaxScore(d, work.scores(query, work.first_block), seen);
    }
    for (std::size_t query = begin; query < end; ++query) {
      const Tokens seen = work.seen(query, work.first_token, tokens);
      work.to.denominator[query] = ExpScores<Weight>(
          d,
          work.scores(query, work.first_block),
          seen,
          tokens,
          work.to.maximum[query]);
      std::fill_n(work.sum(query), work.scratch.stride, 0.0f);
    }
  }
}

void AttendSpan(
    const Queries& queries,
    const AttentionShape& shape,
    const AttentionTile& tile,
    std::size_t span,
    float* memory,
    const Partial& to) {
  const std::size_t group = shape.group();
  const std::size_t n = tile.rows * group;
  const std::size_t first =
      std::max(span * kSpanBlocks, shape.first_seen(tile.start) / kBlockTokens);
  const std::size_t blocks = (tile.end() + kBlockTokens - 1) / kBlockTokens;
  const std::size_t keys_at = tile.kv_head * shape.layout.head_bytes();
  QueryTiles tiles;
  const SpanWork work{
      .queries = queries,
      .shape = shape,
      .tile = tile,
      .first_block = first,
      .last_block = std::min((span + 1) * kSpanBlocks, blocks),
      .first_token = first * kBlockTokens,
      .tile_blocks = blocks,
      .n = n,
      .scratch = SpanScratch(shape, n, memory),
      .to = to,
      .tiles = tiles,
      .keys_at = keys_at,
      .values_at = keys_at + shape.layout.key.bytes()};
  for (std::size_t query = 0, row = 0; query < n; ++row) {
    for (std::size_t i = 0; i < group; ++i, ++query) {
      work.scratch.positions[query] = tile.start + row;
      work.scratch.heads[query] =
          (tile.first_row + row) * shape.n_heads + tile.kv_head * group + i;
    }
  }
  ScoreSpan(work);
  if (shape.layout.dots(shape.layout.value)) {
    WeighSpan<BF16>(work);
  } else {
    WeighSpan<float>(work);
  }
  AddSpan(work);
}

} // namespace
} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(AttendSpan);

std::size_t attention_tile_rows(const AttentionShape& shape) {
  return std::max<std::size_t>(1, kTileQueries / shape.group());
}

std::size_t attention_scratch_floats(
    const AttentionShape& shape,
    std::size_t n) {
  return SpanScratch::floats(shape, n);
}

Spans spans_of(const AttentionShape& shape, const AttentionTile& tile) {
  return {
      shape.first_seen(tile.start) / kSpanTokens,
      (tile.end() + kSpanTokens - 1) / kSpanTokens};
}

void attend_span(
    const Queries& queries,
    const AttentionShape& shape,
    const AttentionTile& tile,
    std::size_t span,
    float* scratch,
    const Partial& to) {
  HWY_DYNAMIC_DISPATCH(AttendSpan)(queries, shape, tile, span, scratch, to);
}

} // namespace optiq::kernels::cpu
#endif
