#include "optiq/kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/attention.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/highway.h"

#include "optiq/kernels/cpu/attention_scratch_impl.h"
#include "optiq/kernels/cpu/dense_attention-inl.h"
#include "optiq/kernels/cpu/packed_attention-inl.h"
#include "optiq/kernels/cpu/packed_weights-inl.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/** One tile against one span. */
struct SpanWork {
  const Queries& queries;
  const AttentionShape& shape;
  const AttentionTile& tile;
  std::size_t first_block; // of the span that the tile sees
  std::size_t last_block;
  std::size_t first_token; // of first_block
  std::size_t tile_blocks; // where what the tile sees ends
  std::size_t n; // queries
  SpanScratch scratch;
  Partial to;
  std::size_t keys_at; // in a block
  std::size_t values_at;

  std::size_t head(std::size_t query) const {
    return scratch.heads[query];
  }
  const std::byte* keys(std::size_t block) const {
    return tile.blocks[block] + keys_at;
  }
  const std::byte* values(std::size_t block) const {
    return tile.blocks[block] + values_at;
  }
  /** Tokens of [from, from + n_tokens) that a query sees, counted from `from`;
   * {} when none. */
  Tokens seen(std::size_t query, std::size_t from, std::size_t n_tokens) const {
    const std::size_t at = scratch.positions[query];
    const auto inside = [=](std::size_t token) {
      return std::clamp(token, from, from + n_tokens) - from;
    };
    const Tokens tokens{inside(shape.first_seen(at)), inside(at + 1)};
    return tokens.empty() ? Tokens{} : tokens;
  }
  float* scores(std::size_t query, std::size_t block) const {
    return scratch.scores + query * kSpanTokens +
        (block - first_block) * kBlockTokens;
  }
  float* sum(std::size_t query) const {
    return to.sum + query * scratch.stride;
  }
  /** What to fetch while a block's keys, or values, are read; null for nothing:
   * only few queries, which read a block once, wait for memory. */
  const std::byte* after_keys(std::size_t block) const {
    return fetches() ? values(block) : nullptr;
  }
  const std::byte* after_values(std::size_t block) const {
    const std::size_t next = block + kSpanBlocks;
    return fetches() && next < tile_blocks ? keys(next) : nullptr;
  }
  bool fetches() const {
    return n <= 2 * kMaxQueries;
  }
};

/** Queries multiplied together, and what they see of a block. */
struct Group {
  std::size_t begin = 0;
  std::size_t n = 0;
  Tokens seen[kMaxQueries];
};

/** Calls body(group) for even groups of the queries that see something of a
 * block. */
template <class Body>
HWY_INLINE void
ForGroups(const SpanWork& work, std::size_t block, const Body& body) {
  const std::size_t n_groups = (work.n + kMaxQueries - 1) / kMaxQueries;
  for (std::size_t i = 0; i < n_groups; ++i) {
    Group group{.begin = work.n * i / n_groups};
    group.n = work.n * (i + 1) / n_groups - group.begin;
    bool any = false;
    for (std::size_t r = 0; r < group.n; ++r) {
      group.seen[r] =
          work.seen(group.begin + r, block * kBlockTokens, kBlockTokens);
      any = any || !group.seen[r].empty();
    }
    if (any) {
      body(group);
    }
  }
}

/** Calls body(integral_constant n), 1 <= n <= kMaxQueries. */
template <class Body>
HWY_INLINE void WithCount(std::size_t n, const Body& body) {
  const auto call = [&](auto count) HWY_ATTR {
    if constexpr (count() <= kMaxQueries) {
      body(count);
    }
  };
  switch (n) {
    case 1:
      return call(std::integral_constant<std::size_t, 1>());
    case 2:
      return call(std::integral_constant<std::size_t, 2>());
    case 3:
      return call(std::integral_constant<std::size_t, 3>());
    case 4:
      return call(std::integral_constant<std::size_t, 4>());
    case 5:
      return call(std::integral_constant<std::size_t, 5>());
    default:
      return call(std::integral_constant<std::size_t, 6>());
  }
}

template <class Kv>
HWY_INLINE void ScoreDense(
    const SpanWork& work,
    std::size_t block,
    const Kv* keys,
    const std::byte* next) {
  const std::size_t dim = work.shape.layout.head_dim;
  ForGroups(work, block, [&](const Group& group) HWY_ATTR {
    Rows rows;
    std::size_t most = 0;
    for (std::size_t r = 0; r < group.n; ++r) {
      const std::size_t query = group.begin + r;
      rows.left[r] = work.queries.values + work.head(query) * dim;
      rows.out[r] = work.scores(query, block);
      most = std::max(most, group.seen[r].end);
    }
    const Right<Kv> right{
        keys, kBlockTokens, group.begin == 0 ? next : nullptr};
    WithCount(group.n, [&](auto count) HWY_ATTR {
      DenseScores<count()>(rows, most, dim, right);
    });
  });
}

template <class Kv>
HWY_INLINE void AddDense(
    const SpanWork& work,
    std::size_t block,
    const Kv* values,
    const std::byte* next) {
  const std::size_t dim = work.shape.layout.head_dim;
  ForGroups(work, block, [&](const Group& group) HWY_ATTR {
    Rows rows;
    for (std::size_t r = 0; r < group.n; ++r) {
      rows.left[r] = work.scores(group.begin + r, block);
      rows.out[r] = work.sum(group.begin + r);
    }
    const Right<Kv> right{values, dim, group.begin == 0 ? next : nullptr};
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
    PrefetchFar(next + at);
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

HWY_INLINE void Widen(const BF16* from, std::size_t n, float* to) {
  const F32 d;
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    hn::StoreU(LoadKv(d, from + i), d, to + i);
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
    const auto* narrow = reinterpret_cast<const BF16*>(keys);
    if (work.n <= kMaxQueries) {
      ScoreDense(work, block, narrow, next);
    } else { // widened once when many queries read it
      Widen(narrow, side.head_dim * kBlockTokens, wide);
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
    const auto* narrow = reinterpret_cast<const BF16*>(values);
    if (work.n <= kMaxQueries) {
      AddDense(work, block, narrow, next);
    } else {
      Widen(narrow, side.head_dim * kBlockTokens, wide);
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

/** The lanes of [i, i + lanes) that lie in `seen`. */
HWY_INLINE hn::Mask<F32> Seen(F32 d, std::size_t i, Tokens seen) {
  const std::size_t lanes = hn::Lanes(d);
  const auto before = hn::FirstN(d, std::max(seen.begin, i) - i);
  return hn::AndNot(before, hn::FirstN(d, std::min(lanes, seen.end - i)));
}

/** Calls body(i, all) for the vectors that hold tokens of `seen`; all: only
 * such. */
template <class Body>
HWY_INLINE void ForVectors(Tokens seen, const Body& body) {
  const std::size_t lanes = hn::Lanes(F32());
  std::size_t i = seen.begin / lanes * lanes;
  if (i < seen.begin) {
    body(i, false);
    i += lanes;
  }
  for (; i + lanes <= seen.end; i += lanes) {
    body(i, true);
  }
  if (i < seen.end) {
    body(i, false);
  }
}

/** Largest of the scores seen. */
HWY_INLINE float MaxScore(F32 d, const float* scores, Tokens seen) {
  const VF32 least = hn::Set(d, -kInfinity);
  VF32 largest = least;
  ForVectors(seen, [&](std::size_t i, bool all) HWY_ATTR {
    VF32 x = hn::LoadU(d, scores + i);
    if (!all) {
      x = hn::IfThenElse(Seen(d, i, seen), x, least);
    }
    largest = hn::Max(largest, x);
  });
  return hn::ReduceMax(d, largest);
}

/** scores -> exp(scores - maximum), zero where not seen; their sum. */
HWY_INLINE float
ExpScores(F32 d, float* scores, Tokens seen, std::size_t end, float maximum) {
  const std::size_t lanes = hn::Lanes(d);
  const VF32 m = hn::Set(d, maximum);
  VF32 sum = hn::Zero(d);
  std::fill_n(scores, seen.begin / lanes * lanes, 0.0f);
  ForVectors(seen, [&](std::size_t i, bool all) HWY_ATTR {
    VF32 p = ExpNonPositive(d, hn::Sub(hn::LoadU(d, scores + i), m));
    if (!all) {
      p = hn::IfThenElseZero(Seen(d, i, seen), p);
    }
    hn::StoreU(p, d, scores + i);
    sum = hn::Add(sum, p);
  });
  const std::size_t after = round_up(seen.end, lanes);
  if (after < end) {
    std::fill_n(scores + after, end - after, 0.0f);
  }
  return hn::ReduceSum(d, sum);
}

/** Turns the scores of a span into weights. */
HWY_INLINE void WeighSpan(const SpanWork& work) {
  const F32 d;
  const std::size_t tokens =
      (work.last_block - work.first_block) * kBlockTokens;
  for (std::size_t query = 0; query < work.n; ++query) {
    float* scores = work.scores(query, work.first_block);
    const Tokens seen = work.seen(query, work.first_token, tokens);
    std::fill_n(work.sum(query), work.scratch.stride, 0.0f);
    if (seen.empty()) {
      std::fill_n(scores, tokens, 0.0f);
      work.to.maximum[query] = -kInfinity;
      work.to.denominator[query] = 0.0f;
      continue;
    }
    const float maximum = MaxScore(d, scores, seen);
    work.to.maximum[query] = maximum;
    work.to.denominator[query] = ExpScores(d, scores, seen, tokens, maximum);
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
  WeighSpan(work);
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
