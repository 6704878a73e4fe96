#include "optiq/kernels/cpu/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/attention.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/highway.h"

#include "optiq/kernels/cpu/attention_scratch_impl.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

using BF16 = hwy::bfloat16_t;

// Queries multiplied together: 4 vectors of sums each must fit the registers.
constexpr std::size_t kMaxQueries =
    (HWY_MAX_BYTES >= 64 || HWY_ARCH_ARM) ? 6 : 3;

HWY_INLINE VF32 LoadKv(F32 d, const float* p) {
  return hn::LoadU(d, p);
}
HWY_INLINE VF32 LoadKv(F32 d, const BF16* p) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<BF16, F32>(), p));
}
HWY_INLINE VF32 LoadKvN(F32 d, const float* p, std::size_t n) {
  return hn::LoadN(d, p, n);
}
HWY_INLINE VF32 LoadKvN(F32 d, const BF16* p, std::size_t n) {
  return hn::PromoteTo(d, hn::LoadN(hn::Rebind<BF16, F32>(), p, n));
}

/** Left factors of up to kMaxQueries rows, and where their results go. */
struct Rows {
  const float* left[kMaxQueries];
  float* out[kMaxQueries];
  float factor[kMaxQueries]; // of the old value of out
};

/**
 * out[r][0 .. V lanes) = factor[r] * out[r] + sum_i left[r][i] * right[i][...]
 * with i ascending in one chain per element, whatever R and V. `last` lanes of
 * the only vector count when kPartial.
 */
template <std::size_t R, std::size_t V, bool kPartial, class Kv>
HWY_INLINE void MultiplyStrip(
    const Rows& rows,
    std::size_t column,
    std::size_t depth,
    const Kv* HWY_RESTRICT right,
    std::size_t stride,
    std::size_t last) {
  static_assert(!kPartial || V == 1);
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  VF32 sum[R][V];
  for (std::size_t r = 0; r < R; ++r) {
    const VF32 factor = hn::Set(d, rows.factor[r]);
    for (std::size_t v = 0; v < V; ++v) {
      sum[r][v] =
          hn::Mul(factor, hn::LoadU(d, rows.out[r] + column + v * lanes));
    }
  }
  right += column;
  for (std::size_t i = 0; i < depth; ++i, right += stride) {
    VF32 b[V];
    for (std::size_t v = 0; v < V; ++v) {
      if constexpr (kPartial) {
        b[v] = LoadKvN(d, right, last);
      } else {
        b[v] = LoadKv(d, right + v * lanes);
      }
    }
    for (std::size_t r = 0; r < R; ++r) {
      const VF32 a = hn::Set(d, rows.left[r][i]);
      for (std::size_t v = 0; v < V; ++v) {
        sum[r][v] = hn::MulAdd(a, b[v], sum[r][v]);
      }
    }
  }
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t v = 0; v < V; ++v) {
      hn::StoreU(sum[r][v], d, rows.out[r] + column + v * lanes);
    }
  }
}

/** The same over columns [0, width). The rows of out have room for whole
 * vectors. */
template <std::size_t R, class Kv>
HWY_INLINE void Multiply(
    const Rows& rows,
    std::size_t width,
    std::size_t depth,
    const Kv* right,
    std::size_t stride) {
  const std::size_t lanes = hn::Lanes(F32());
  std::size_t column = 0;
  for (; column + 4 * lanes <= width; column += 4 * lanes) {
    MultiplyStrip<R, 4, false>(rows, column, depth, right, stride, lanes);
  }
  for (; column + lanes <= width; column += lanes) {
    MultiplyStrip<R, 1, false>(rows, column, depth, right, stride, lanes);
  }
  if (column < width) {
    MultiplyStrip<R, 1, true>(
        rows, column, depth, right, stride, width - column);
  }
}

/** Tokens [begin, end) of a block. */
struct Tokens {
  std::size_t begin = 0;
  std::size_t end = 0;
};

/** The lanes of [i, i + lanes) that lie in `seen`. */
HWY_INLINE hn::Mask<F32> Seen(F32 d, std::size_t i, Tokens seen) {
  const std::size_t lanes = hn::Lanes(d);
  const auto before = hn::FirstN(d, std::max(seen.begin, i) - i);
  return hn::AndNot(before, hn::FirstN(d, std::min(lanes, seen.end - i)));
}

/** Largest of the scores seen and `old`. */
HWY_INLINE float MaxScore(F32 d, const float* scores, Tokens seen, float old) {
  const std::size_t lanes = hn::Lanes(d);
  VF32 largest = hn::Set(d, old);
  for (std::size_t i = seen.begin / lanes * lanes; i < seen.end; i += lanes) {
    largest = hn::Max(
        largest,
        hn::IfThenElse(
            Seen(d, i, seen), hn::LoadU(d, scores + i), hn::Set(d, old)));
  }
  return hn::ReduceMax(d, largest);
}

/** scores -> exp(scores - maximum), zero where not seen; adds them to the
 * denominator's lanes after scaling those by `factor`. */
HWY_INLINE void ExpScores(
    F32 d,
    float* scores,
    Tokens seen,
    float maximum,
    float factor,
    float* denominator) {
  const std::size_t lanes = hn::Lanes(d);
  const VF32 m = hn::Set(d, maximum);
  VF32 sum = hn::Mul(hn::LoadU(d, denominator), hn::Set(d, factor));
  for (std::size_t i = seen.begin / lanes * lanes; i < seen.end; i += lanes) {
    const VF32 e = ExpNonPositive(d, hn::Sub(hn::LoadU(d, scores + i), m));
    const VF32 p = hn::IfThenElseZero(Seen(d, i, seen), e);
    hn::StoreU(p, d, scores + i);
    sum = hn::Add(sum, p);
  }
  hn::StoreU(sum, d, denominator);
}

/** out[r] += sum over `tokens` of p[r][t] values[t], for one query. */
template <class Kv>
HWY_INLINE void AddValues(
    float* out,
    const float* p,
    Tokens tokens,
    const Kv* values,
    std::size_t head_dim) {
  if (tokens.begin < tokens.end) {
    Rows one;
    one.left[0] = p + tokens.begin;
    one.out[0] = out;
    one.factor[0] = 1.0f;
    Multiply<1>(
        one,
        head_dim,
        tokens.end - tokens.begin,
        values + tokens.begin * head_dim,
        head_dim);
  }
}

/** The queries [first, first + R) of a tile against one block. */
template <std::size_t R, class Kv>
HWY_NOINLINE void AttendQueries(
    const AttentionScratch& scratch,
    std::size_t first,
    const Tokens* seen, // of the block, by each query
    const Kv* keys,
    const Kv* values,
    std::size_t head_dim) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t most = 0;
  Tokens common{0, kBlockTokens}; // seen by all
  for (std::size_t r = 0; r < R; ++r) {
    most = std::max(most, seen[r].end);
    common.begin = std::max(common.begin, seen[r].begin);
    common.end = std::min(common.end, seen[r].end);
  }
  common.end = std::max(common.begin, common.end);

  Rows rows;
  for (std::size_t r = 0; r < R; ++r) {
    rows.left[r] = scratch.query + (first + r) * scratch.stride;
    rows.out[r] = scratch.scores + r * kBlockTokens;
    rows.factor[r] = 0.0f;
    std::fill_n(rows.out[r], kBlockTokens, 0.0f);
  }
  const std::size_t width = (most + lanes - 1) / lanes * lanes;
  Multiply<R>(rows, width, head_dim, keys, kBlockTokens);

  HWY_ALIGN float factor[kSumLanes] = {};
  float* maximum = scratch.maximum + first;
  for (std::size_t r = 0; r < R; ++r) {
    const float old = maximum[r];
    maximum[r] = MaxScore(d, rows.out[r], seen[r], old);
    // Equal also when both are infinite: a query that saw nothing new.
    factor[r] = old == maximum[r] ? 0.0f : old - maximum[r];
  }
  for (std::size_t r = 0; r < R; r += lanes) {
    hn::StoreU(ExpNonPositive(d, hn::LoadU(d, factor + r)), d, factor + r);
  }
  for (std::size_t r = 0; r < R; ++r) {
    ExpScores(
        d,
        rows.out[r],
        seen[r],
        maximum[r],
        factor[r],
        scratch.denominator + (first + r) * kSumLanes);
  }

  // Tokens that some of the queries do not see are added per query: 0 * v would
  // still spread a non-finite v to those.
  const float* p[R];
  for (std::size_t r = 0; r < R; ++r) {
    p[r] = rows.out[r];
    rows.left[r] = p[r] + common.begin;
    rows.out[r] = scratch.sum + (first + r) * scratch.stride;
    rows.factor[r] = factor[r];
    if (seen[r].begin < common.begin) {
      for (std::size_t i = 0; i < scratch.stride; ++i) {
        rows.out[r][i] *= factor[r];
      }
      rows.factor[r] = 1.0f;
      const Tokens early{seen[r].begin, std::min(seen[r].end, common.begin)};
      AddValues(rows.out[r], p[r], early, values, head_dim);
    }
  }
  Multiply<R>(
      rows,
      head_dim,
      common.end - common.begin,
      values + common.begin * head_dim,
      head_dim);
  for (std::size_t r = 0; r < R; ++r) {
    const Tokens late{std::max(seen[r].begin, common.end), seen[r].end};
    AddValues(rows.out[r], p[r], late, values, head_dim);
  }
}

template <class Kv>
HWY_INLINE void AttendQueriesOf(
    std::size_t n,
    const AttentionScratch& scratch,
    std::size_t first,
    const Tokens* seen,
    const Kv* keys,
    const Kv* values,
    std::size_t head_dim) {
  const auto call = [&](auto count) HWY_ATTR {
    if constexpr (count() <= kMaxQueries) {
      AttendQueries<count()>(scratch, first, seen, keys, values, head_dim);
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

/** All queries of a tile against one block, in even groups. */
template <class Kv>
HWY_INLINE void AttendBlock(
    const AttentionScratch& scratch,
    const AttentionShape& shape,
    const AttentionTile& tile,
    std::size_t block_start,
    const Kv* keys,
    const Kv* values) {
  const std::size_t group = shape.group();
  const std::size_t queries = tile.rows * group;
  const std::size_t n_groups = (queries + kMaxQueries - 1) / kMaxQueries;
  for (std::size_t i = 0; i < n_groups; ++i) {
    const std::size_t begin = queries * i / n_groups;
    const std::size_t end = queries * (i + 1) / n_groups;
    Tokens seen[kMaxQueries];
    bool any = false;
    const auto in_block = [=](std::size_t position) {
      return std::clamp(position, block_start, block_start + kBlockTokens) -
          block_start;
    };
    for (std::size_t query = begin; query < end; ++query) {
      const std::size_t position = tile.start + query / group;
      const Tokens mine{
          in_block(shape.first_seen(position)), in_block(position + 1)};
      any = any || mine.begin < mine.end;
      seen[query - begin] = mine.begin < mine.end ? mine : Tokens{};
    }
    if (any) {
      AttendQueriesOf(
          end - begin, scratch, begin, seen, keys, values, shape.head_dim);
    }
  }
}

HWY_INLINE void Widen(const BF16* from, std::size_t n, float* to) {
  const F32 d;
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    hn::StoreU(LoadKv(d, from + i), d, to + i);
  }
}

template <class Kv>
void AttendAs(
    const float* q,
    const AttentionShape& shape,
    const AttentionTile& tile,
    const AttentionScratch& scratch,
    float* out) {
  const std::size_t dim = shape.head_dim;
  const std::size_t group = shape.group();
  const std::size_t queries = tile.rows * group;
  const auto head_of = [&](std::size_t query) {
    return ((tile.first_row + query / group) * shape.n_heads +
            tile.kv_head * group + query % group) *
        dim;
  };
  for (std::size_t i = 0; i < queries; ++i) {
    const float* from = q + head_of(i);
    float* to = scratch.query + i * scratch.stride;
    for (std::size_t j = 0; j < dim; ++j) {
      to[j] = from[j] * shape.scale;
    }
  }
  std::fill_n(scratch.sum, queries * scratch.stride, 0.0f);
  std::fill_n(scratch.denominator, queries * kSumLanes, 0.0f);
  std::fill_n(
      scratch.maximum, queries, -std::numeric_limits<float>::infinity());

  const std::size_t per_head = kBlockTokens * dim;
  const std::size_t end = tile.start + tile.rows;
  const std::size_t first = shape.first_seen(tile.start) / kBlockTokens;
  for (std::size_t b = first; b * kBlockTokens < end; ++b) {
    const Kv* keys = reinterpret_cast<const Kv*>(tile.blocks[b]) +
        2 * tile.kv_head * per_head;
    const Kv* values = keys + per_head;
    const std::size_t start = b * kBlockTokens;
    if constexpr (sizeof(Kv) == 2) {
      // Widened once when many queries read it.
      if (queries > kMaxQueries) {
        Widen(keys, 2 * per_head, scratch.block);
        const float* wide = scratch.block;
        AttendBlock(scratch, shape, tile, start, wide, wide + per_head);
        continue;
      }
    }
    AttendBlock(scratch, shape, tile, start, keys, values);
  }

  const F32 d;
  for (std::size_t i = 0; i < queries; ++i) {
    const float sum =
        hn::ReduceSum(d, hn::LoadU(d, scratch.denominator + i * kSumLanes));
    const float* from = scratch.sum + i * scratch.stride;
    float* to = out + head_of(i);
    for (std::size_t j = 0; j < dim; ++j) {
      to[j] = from[j] / sum;
    }
  }
}

void Attend(
    const float* q,
    const AttentionShape& shape,
    const AttentionTile& tile,
    float* memory,
    float* out) {
  const AttentionScratch scratch(shape, memory);
  if (shape.type == KvType::BFloat16) {
    AttendAs<BF16>(q, shape, tile, scratch, out);
  } else {
    AttendAs<float>(q, shape, tile, scratch, out);
  }
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {
namespace {

HWY_EXPORT(Attend);

void convert(float x, float& to) {
  to = x;
}

/** Round to nearest even, subnormals too (the instruction would drop them). */
void convert(float x, std::uint16_t& to) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to =
      static_cast<std::uint16_t>(std::isnan(x) ? (bits >> 16) | 0x40 : rounded);
}

template <class Kv>
void append_as(
    const float* k,
    const float* v,
    const AttentionShape& shape,
    const AttentionTile& tile) {
  const std::size_t dim = shape.head_dim;
  const std::size_t row = shape.n_kv_heads * dim;
  const std::size_t end = tile.start + tile.rows;
  for (std::size_t position = tile.start; position < end;) {
    const std::size_t column = position % kBlockTokens;
    const std::size_t n = std::min(kBlockTokens - column, end - position);
    Kv* keys = reinterpret_cast<Kv*>(tile.blocks[position / kBlockTokens]) +
        2 * tile.kv_head * kBlockTokens * dim;
    Kv* values = keys + (kBlockTokens + column) * dim;
    const std::size_t first =
        (tile.first_row + position - tile.start) * row + tile.kv_head * dim;
    for (std::size_t i = 0; i < dim; ++i) {
      for (std::size_t t = 0; t < n; ++t) {
        convert(k[first + t * row + i], keys[i * kBlockTokens + column + t]);
      }
    }
    for (std::size_t t = 0; t < n; ++t) {
      for (std::size_t i = 0; i < dim; ++i) {
        convert(v[first + t * row + i], values[t * dim + i]);
      }
    }
    position += n;
  }
}

} // namespace

void append_kv(
    const float* k,
    const float* v,
    const AttentionShape& shape,
    const AttentionTile& tile) {
  if (shape.type == KvType::BFloat16) {
    append_as<std::uint16_t>(k, v, shape, tile);
  } else {
    append_as<float>(k, v, shape, tile);
  }
}

std::size_t attention_tile_rows(const AttentionShape& shape) {
  return std::max<std::size_t>(1, kTileQueries / shape.group());
}

std::size_t attention_scratch_floats(const AttentionShape& shape) {
  const std::size_t queries = attention_tile_rows(shape) * shape.group();
  // Whole cache lines: the ranks of a pool have theirs side by side.
  return queries * (2 * round_to_line(shape.head_dim) + kSumLanes) +
      round_to_line(queries) + (kScoreRows + 2 * shape.head_dim) * kBlockTokens;
}

void attend(
    const float* q,
    const AttentionShape& shape,
    const AttentionTile& tile,
    float* scratch,
    float* out) {
  HWY_DYNAMIC_DISPATCH(Attend)(q, shape, tile, scratch, out);
}

} // namespace optiq::kernels::cpu
#endif
