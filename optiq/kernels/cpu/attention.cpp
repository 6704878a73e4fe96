#include "optiq/kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/attention.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/highway.h"

#include "optiq/kernels/cpu/amx_attention.h"
#include "optiq/kernels/cpu/attention_scratch_impl.h"
#include "optiq/kernels/cpu/attention_span-inl.h"
#include "optiq/kernels/cpu/dense_attention-inl.h"
#include "optiq/kernels/cpu/packed_attention-inl.h"
#include "optiq/kernels/cpu/packed_weights-inl.h"
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
  ForGroups(work, block, [&](const Group& group) HWY_ATTR {
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
    WithCount(group.n, [&](auto count) HWY_ATTR {
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
  ForGroups(work, block, [&](const Group& group) HWY_ATTR {
    Rows<Cell> rows;
    for (std::size_t r = 0; r < group.n; ++r) {
      rows.left[r] = work.weights<Cell>(group.begin + r, block);
      rows.out[r] = work.sum(group.begin + r);
    }
    const Right<Cell> right{values, dim, group.begin == 0 ? next : nullptr};
    WithCount(group.n, [&](auto count) HWY_ATTR {
      DenseValues<count()>(rows, group.seen, dim, right);
    });
  });
}

/** What the codes' loops leave out of the fetching of `next`, a packed side:
 * its parameters; all of it when the side at hand has bytes for codes and so no
 * such loop. */
HWY_INLINE void
FetchRest(const KvSide& now, const KvSide& side, const std::byte* next) {
  if (next == nullptr || !side.packed()) {
    return;
  }
  const std::size_t from = now.bits == 8 ? 0 : side.codes_bytes();
  for (std::size_t at = from; at < side.bytes(); at += 64) {
    prefetch_far(next + at);
  }
}

/** R queries from `begin` on, as packed keys meet them. */
template <std::size_t R>
HWY_INLINE DigitRows<R> DigitsOf(const SpanWork& work, std::size_t begin) {
  DigitRows<R> rows;
  for (std::size_t r = 0; r < R; ++r) {
    const std::size_t head = work.head(begin + r);
    rows.digits[r] = work.queries.digits + head * work.shape.layout.key.dims;
    rows.factors[r] = work.queries.factors + head * 2 * work.shape.units.size;
    rows.scores[r] = work.scores(begin + r, work.first_block);
  }
  return rows;
}

/** The same as packed values meet them. */
template <std::size_t R>
HWY_INLINE WeightRows<R> WeightsOf(const SpanWork& work, std::size_t begin) {
  const std::size_t groups = work.shape.layout.value.groups();
  WeightRows<R> rows;
  for (std::size_t r = 0; r < R; ++r) {
    rows.weights[r] = work.scratch.weights + (begin + r) * groups;
    rows.sums[r] = work.sum(begin + r);
  }
  return rows;
}

/** Whether unpacking in registers beats a tile: one group of queries. */
HWY_INLINE bool ReadsNibbles(const SpanWork& work, const KvSide& side) {
  return side.packed() && !work.shape.layout.exact && side.bits == 4 &&
      side.wide == 0 && work.n <= kMaxQueries;
}

/** Calls body(tile) with the nibbles of a side whose panels are `panel` bytes;
 * body says where they lie. */
template <class Body>
HWY_INLINE void
WithNibbles(const KvSide& side, std::size_t panel, const Body& body) {
  if (side.code == KvCode::Turbo) {
    body(NibbleTile<true>{nullptr, panel, nullptr, ByteTable(*side.table)});
  } else {
    body(NibbleTile<false>{nullptr, panel, nullptr, ByteTable(CodeTable())});
  }
}

/** Scores of the span with keys of nibbles. */
HWY_INLINE void ScoreNibbles(const SpanWork& work) {
  const KvSide& side = work.shape.layout.key;
  const std::size_t codes_bytes = side.codes_bytes();
  const std::size_t panel = side.codes_before(side.dims);
  WithNibbles(side, panel, [&](auto tile) HWY_ATTR {
    WithCount(work.n, [&](auto count) HWY_ATTR {
      const auto rows = DigitsOf<count()>(work, 0);
      for (std::size_t b = work.first_block; b < work.last_block; ++b) {
        const std::byte* keys = work.keys(b);
        tile.data = reinterpret_cast<const std::uint8_t*>(keys);
        tile.next = work.after_keys(b);
        FetchRest(side, work.shape.layout.value, tile.next);
        PackedScores<!tile.kLooks, count()>(
            work.shape.units,
            tile,
            keys + codes_bytes,
            rows,
            b - work.first_block);
      }
    });
  });
}

/** Adds the values of the span, nibbles. */
HWY_INLINE void AddNibbles(const SpanWork& work) {
  const KvSide& side = work.shape.layout.value;
  const std::size_t panel = 4 * side.codes_before(kPanelRows);
  WithNibbles(side, panel, [&](auto tile) HWY_ATTR {
    WithCount(work.n, [&](auto count) HWY_ATTR {
      const auto rows = WeightsOf<count()>(work, 0);
      for (std::size_t b = work.first_block; b < work.last_block; ++b) {
        tile.data = reinterpret_cast<const std::uint8_t*>(work.values(b));
        tile.next = work.after_values(b);
        FetchRest(side, work.shape.layout.key, tile.next);
        PackedValues<count()>(side, tile, rows, b - work.first_block);
      }
    });
  });
}

HWY_INLINE void
ScorePacked(const SpanWork& work, std::size_t block, const std::byte* next) {
  const KvSide& side = work.shape.layout.key;
  const std::byte* keys = work.keys(block);
  const std::byte* params = keys + side.codes_bytes();
  const KeyUnits& units = work.shape.units;
  const std::size_t at = block - work.first_block;
  const ByteTile tile = UnpackKeys(side, keys, true, work.scratch.codes, next);
  ForGroups(work, block, [&](const Group& group) HWY_ATTR {
    WithCount(group.n, [&](auto count) HWY_ATTR {
      const auto rows = DigitsOf<count()>(work, group.begin);
      if (side.code == KvCode::Affine) {
        PackedScores<true, count()>(units, tile, params, rows, at);
      } else {
        PackedScores<false, count()>(units, tile, params, rows, at);
      }
    });
  });
}

HWY_INLINE void
AddPacked(const SpanWork& work, std::size_t block, const std::byte* next) {
  const KvSide& side = work.shape.layout.value;
  const ByteTile tile =
      UnpackValues(side, work.values(block), true, work.scratch.codes, next);
  ForGroups(work, block, [&](const Group& group) HWY_ATTR {
    WithCount(group.n, [&](auto count) HWY_ATTR {
      const auto rows = WeightsOf<count()>(work, group.begin);
      PackedValues<count()>(side, tile, rows, block - work.first_block);
    });
  });
}

/** Rounds the weights of a span to digits; the sums begin with what does not
 * depend on codes. */
template <bool kAffine>
HWY_INLINE void WeighPacked(const SpanWork& work) {
  const F32 d;
  const KvSide& side = work.shape.layout.value;
  const std::size_t groups = side.groups();
  const int middle = MiddleCode(side);
  SpanWeights* weights = work.scratch.weights;
  for (std::size_t i = 0; i < work.n * groups; ++i) {
    std::fill_n(weights[i].after, std::size(weights[i].after), 0.0f);
  }
  for (std::size_t b = work.first_block; b < work.last_block; ++b) {
    const std::byte* params = work.values(b) + side.codes_bytes();
    for (std::size_t g = 0; g < groups; ++g) {
      const BlockScales scales =
          LoadScales<kAffine>(params + g * 4 * kBlockTokens, middle);
      for (std::size_t query = 0; query < work.n; ++query) {
        WeighBlock(
            scales,
            middle,
            work.scores(query, b),
            b - work.first_block,
            weights[query * groups + g]);
      }
    }
  }
  const std::size_t channels = kAffine ? side.group : side.head_dim;
  for (std::size_t i = 0; i < work.n * groups; ++i) {
    const std::size_t from = i % groups * channels;
    const float after = hn::ReduceSum(d, hn::Load(d, weights[i].after));
    if (!std::isfinite(after)) { // digits hold nothing then
      std::fill_n(
          weights[i].scale,
          kSpanBlocks,
          std::numeric_limits<float>::quiet_NaN());
    }
    std::fill_n(
        work.sum(i / groups) + from,
        std::min(channels, side.head_dim - from),
        after);
  }
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

/** Scores of all queries with a block; fetches `next`. */
HWY_INLINE void
ScoreBlock(const SpanWork& work, std::size_t block, const std::byte* next) {
  const KvSide& side = work.shape.layout.key;
  const std::byte* keys = work.keys(block);
  FetchRest(side, work.shape.layout.value, next);
  float* wide = work.scratch.block;
  if (side.code == KvCode::Float32) {
    ScoreDense(work, block, reinterpret_cast<const float*>(keys), next);
  } else if (side.code == KvCode::BFloat16) {
    const auto* pairs = reinterpret_cast<const BfPair*>(keys);
    if (work.shape.layout.dots(side) && attends_on_tiles(side.head_dim)) {
      ScoreTiles(work, block, next);
    } else if (work.shape.layout.dots(side)) {
      ScoreDense(work, block, pairs, next);
    } else {
      WidenPairs(pairs, side.head_dim / 2, kBlockTokens, wide);
      ScoreDense<float>(work, block, wide, nullptr);
    }
  } else if (work.shape.layout.exact) {
    const ByteTile codes =
        UnpackKeys(side, keys, false, work.scratch.codes, next);
    DecodeKeys(side, codes, keys + side.codes_bytes(), wide);
    ScoreDense<float>(work, block, wide, nullptr);
  } else {
    ScorePacked(work, block, next);
  }
}

/** Adds the weighted values of a block; fetches `next`. */
HWY_INLINE void
AddBlock(const SpanWork& work, std::size_t block, const std::byte* next) {
  const KvSide& side = work.shape.layout.value;
  const std::byte* values = work.values(block);
  FetchRest(side, work.shape.layout.key, next);
  float* wide = work.scratch.block;
  if (side.code == KvCode::Float32) {
    AddDense(work, block, reinterpret_cast<const float*>(values), next);
  } else if (side.code == KvCode::BFloat16) {
    const auto* pairs = reinterpret_cast<const BfPair*>(values);
    if (work.shape.layout.dots(side) && attends_on_tiles(side.head_dim)) {
      AddTiles(work, block, next);
    } else if (work.shape.layout.dots(side)) {
      AddDense(work, block, pairs, next);
    } else {
      WidenPairs(pairs, kBlockTokens / 2, side.head_dim, wide);
      AddDense<float>(work, block, wide, nullptr);
    }
  } else if (work.shape.layout.exact) {
    const ByteTile codes =
        UnpackValues(side, values, false, work.scratch.codes, next);
    DecodeValues(side, codes, values + side.codes_bytes(), wide);
    AddDense<float>(work, block, wide, nullptr);
  } else {
    AddPacked(work, block, next);
  }
}

HWY_INLINE void ScoreSpan(const SpanWork& work) {
  if (ReadsNibbles(work, work.shape.layout.key)) {
    ScoreNibbles(work);
    return;
  }
  for (std::size_t b = work.first_block; b < work.last_block; ++b) {
    ScoreBlock(work, b, work.after_keys(b));
  }
}

HWY_INLINE void AddSpan(const SpanWork& work) {
  if (ReadsNibbles(work, work.shape.layout.value)) {
    AddNibbles(work);
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
  if (shape.layout.value.packed() && !shape.layout.exact) {
    if (shape.layout.value.code == KvCode::Affine) {
      WeighPacked<true>(work);
    } else {
      WeighPacked<false>(work);
    }
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
