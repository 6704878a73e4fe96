// Products of queries with dense blocks; included once per SIMD target.
//
// Both kinds of block are matrices of 32-bit cells, one step of a product's
// depth per row: float32 values, multiplied and added; or pairs of bfloat16,
// depths 2i and 2i + 1 (channels of a key, tokens of the values), which meet
// pairs of bfloat16 in one dot with a float32 sum.
#if defined(OPTIQ_KERNELS_CPU_DENSE_ATTENTION_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_DENSE_ATTENTION_INL_H_
#undef OPTIQ_KERNELS_CPU_DENSE_ATTENTION_INL_H_
#else
#define OPTIQ_KERNELS_CPU_DENSE_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"

#include "optiq/kernels/cpu/prefetch.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

using BF16 = hwy::bfloat16_t;

// Queries multiplied together: 4 vectors of sums each must fit the registers.
constexpr std::size_t kMaxQueries =
    (HWY_MAX_BYTES >= 64 || HWY_ARCH_ARM) ? 6 : 3;

/** Tokens [begin, end). */
struct Tokens {
  std::size_t begin = 0;
  std::size_t end = 0;

  bool empty() const {
    return begin >= end;
  }
};

using U32 = hn::RebindToUnsigned<F32>;
using VU32 = hn::Vec<U32>;

/** Two bfloat16; the one of even depth is in the lower half. */
using BfPair = std::uint32_t;
constexpr BfPair kEvenHalf = 0x0000ffff;
constexpr BfPair kOddHalf = 0xffff0000;

/** Steps of the depth in a cell. */
template <class Cell>
constexpr std::size_t kDepth = std::is_same_v<Cell, float> ? 1 : 2;

HWY_INLINE VF32 AddProducts(F32 /*d*/, VF32 a, VF32 b, VF32 sum) {
  return hn::MulAdd(a, b, sum);
}

/** sum[i] + a[2i] b[2i] + a[2i + 1] b[2i + 1]. */
HWY_INLINE VF32 AddProducts(F32 d, VU32 a, VU32 b, VF32 sum) {
#if HWY_NATIVE_DOT_BF16 && !HWY_HAVE_SCALABLE
  const hn::Repartition<BF16, F32> halves;
  VF32 unused = hn::Zero(d);
  return hn::ReorderWidenMulAccumulate(
      d, hn::BitCast(halves, a), hn::BitCast(halves, b), sum, unused);
#else
  const U32 du;
  const VU32 odd = hn::Set(du, kOddHalf);
  sum = hn::MulAdd(
      hn::BitCast(d, hn::And(a, odd)), hn::BitCast(d, hn::And(b, odd)), sum);
  return hn::MulAdd(
      hn::BitCast(d, hn::ShiftLeft<16>(a)),
      hn::BitCast(d, hn::ShiftLeft<16>(b)),
      sum);
#endif
}

/** Weights or queries are read as cells whatever they were written as. */
template <class Cell>
HWY_INLINE Cell LoadCell(const Cell* p) {
  Cell cell;
  std::memcpy(&cell, p, sizeof cell);
  return cell;
}

/** Left factors of up to kMaxQueries rows, and where their results go. */
template <class Cell>
struct Rows {
  const Cell* left[kMaxQueries];
  float* out[kMaxQueries];
};

/** A matrix [depth][stride], and memory to fetch while it is read. */
template <class Cell>
struct Right {
  const Cell* data = nullptr;
  std::size_t stride = 0;
  const std::byte* next = nullptr; // as many bytes; null: nothing to fetch
};

/** Part of a product. */
struct Strip {
  std::size_t column = 0;
  std::size_t depth = 0; // in cells
  std::size_t last = 0; // lanes that count, where kPartial
};

/**
 * out[r][0 .. V lanes) += sum_i left[r][i] * right[i][...] with i ascending in
 * one chain per element, whatever R and V; from zero when kFresh. `last` lanes
 * of the only vector count when kPartial.
 */
template <std::size_t R, std::size_t V, bool kFresh, bool kPartial, class Cell>
HWY_INLINE void MultiplyStrip(
    const Rows<Cell>& rows,
    const Strip& strip,
    const Right<Cell>& right) {
  static_assert(!kPartial || V == 1);
  const F32 d;
  const hn::Rebind<Cell, F32> dc;
  const std::size_t lanes = hn::Lanes(d);
  VF32 sum[R][V];
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t v = 0; v < V; ++v) {
      const float* from = rows.out[r] + strip.column + v * lanes;
      sum[r][v] = kFresh ? hn::Zero(d) : hn::LoadU(d, from);
    }
  }
  const Cell* HWY_RESTRICT data = right.data + strip.column;
  const std::byte* next = strip.column == 0 ? right.next : nullptr;
  const std::size_t row_bytes = right.stride * sizeof(Cell);
  for (std::size_t i = 0; i < strip.depth; ++i, data += right.stride) {
    if (next != nullptr) {
      for (std::size_t at = 0; at < row_bytes; at += 64) {
        prefetch_far(next + i * row_bytes + at);
      }
    }
    hn::Vec<hn::Rebind<Cell, F32>> b[V];
    for (std::size_t v = 0; v < V; ++v) {
      if constexpr (kPartial) {
        b[v] = hn::LoadN(dc, data, strip.last);
      } else {
        b[v] = hn::LoadU(dc, data + v * lanes);
      }
    }
    for (std::size_t r = 0; r < R; ++r) {
      const auto a = hn::Set(dc, LoadCell(rows.left[r] + i));
      for (std::size_t v = 0; v < V; ++v) {
        sum[r][v] = AddProducts(d, a, b[v], sum[r][v]);
      }
    }
  }
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t v = 0; v < V; ++v) {
      hn::StoreU(sum[r][v], d, rows.out[r] + strip.column + v * lanes);
    }
  }
}

/** The same over columns [0, width). The rows of out have room for whole
 * vectors. */
template <std::size_t R, bool kFresh, class Cell>
HWY_INLINE void Multiply(
    const Rows<Cell>& rows,
    std::size_t width,
    std::size_t depth,
    const Right<Cell>& right) {
  const std::size_t lanes = hn::Lanes(F32());
  Strip strip{.depth = depth, .last = lanes};
  for (; strip.column + 4 * lanes <= width; strip.column += 4 * lanes) {
    MultiplyStrip<R, 4, kFresh, false>(rows, strip, right);
  }
  if (strip.column + 2 * lanes <= width) {
    MultiplyStrip<R, 2, kFresh, false>(rows, strip, right);
    strip.column += 2 * lanes;
  }
  if (strip.column + lanes <= width) {
    MultiplyStrip<R, 1, kFresh, false>(rows, strip, right);
    strip.column += lanes;
  }
  if (strip.column < width) {
    strip.last = width - strip.column;
    MultiplyStrip<R, 1, kFresh, true>(rows, strip, right);
  }
}

/** rows.out[r][t] = rows.left[r] . k_t, for the first `most` tokens at least.
 * keys [head_dim / kDepth][64]. */
template <std::size_t R, class Cell>
HWY_NOINLINE void DenseScores(
    const Rows<Cell>& rows,
    std::size_t most,
    std::size_t head_dim,
    const Right<Cell>& keys) {
  const std::size_t lanes = hn::Lanes(F32());
  std::size_t vectors = (most + lanes - 1) / lanes;
  // Four at once take no longer than two and one.
  vectors += vectors % 4 == 3 ? 1 : 0;
  Multiply<R, true>(rows, vectors * lanes, head_dim / kDepth<Cell>, keys);
}

/** out += the token of a pair that `half` keeps, for one query. */
HWY_INLINE void AddHalf(
    float* out,
    BfPair p,
    BfPair half,
    const BfPair* values,
    std::size_t head_dim) {
  const F32 d;
  const U32 du;
  const VU32 weights = hn::Set(du, p);
  for (std::size_t i = 0; i < head_dim; i += hn::Lanes(d)) {
    const VU32 pairs = hn::LoadN(du, values + i, head_dim - i);
    const VU32 kept = hn::And(pairs, hn::Set(du, half));
    hn::StoreU(
        AddProducts(d, weights, kept, hn::LoadU(d, out + i)), d, out + i);
  }
}

/** The rows of cells that hold tokens of `seen` and no others. */
template <class Cell>
HWY_INLINE Tokens WholeCells(Tokens seen) {
  const std::size_t begin = (seen.begin + kDepth<Cell> - 1) / kDepth<Cell>;
  return {begin, std::max(begin, seen.end / kDepth<Cell>)};
}

/** out += sum over `tokens` of p[t] values[t], for one query. */
template <class Cell>
HWY_NOINLINE void AddValues(
    float* out,
    const Cell* p,
    Tokens tokens,
    const Cell* values,
    std::size_t head_dim) {
  if (tokens.empty()) {
    return;
  }
  const auto half = [&](std::size_t cell, BfPair kept) HWY_ATTR {
    if constexpr (kDepth<Cell> == 2) {
      AddHalf(
          out, LoadCell(p + cell), kept, values + cell * head_dim, head_dim);
    }
  };
  const Tokens whole = WholeCells<Cell>(tokens);
  if (whole.begin * kDepth < Cell >> tokens.begin) {
    half(whole.begin - 1, kOddHalf);
  }
  if (!whole.empty()) {
    Rows<Cell> one;
    one.left[0] = p + whole.begin;
    one.out[0] = out;
    Multiply<1, false>(
        one,
        head_dim,
        whole.end - whole.begin,
        Right<Cell>{values + whole.begin * head_dim, head_dim});
  }
  if (whole.end * kDepth<Cell> < tokens.end) {
    half(whole.end, kEvenHalf);
  }
}

/** rows.out[r] += sum over seen[r] of rows.left[r][t] values[t]. Tokens that
 * some of the queries do not see are added per query: 0 * v would still spread
 * a non-finite v to those. values [64 / kDepth][head_dim]. */
template <std::size_t R, class Cell>
HWY_NOINLINE void DenseValues(
    const Rows<Cell>& rows,
    const Tokens* seen,
    std::size_t head_dim,
    const Right<Cell>& values) {
  Tokens common = WholeCells<Cell>(seen[0]); // in cells
  for (std::size_t r = 1; r < R; ++r) {
    const Tokens whole = WholeCells<Cell>(seen[r]);
    common.begin = std::max(common.begin, whole.begin);
    common.end = std::min(common.end, whole.end);
  }
  common.end = std::max(common.begin, common.end);
  Rows<Cell> shifted = rows;
  for (std::size_t r = 0; r < R; ++r) {
    shifted.left[r] += common.begin;
    const Tokens early{
        seen[r].begin, std::min(seen[r].end, common.begin * kDepth<Cell>)};
    AddValues(rows.out[r], rows.left[r], early, values.data, head_dim);
  }
  Right<Cell> middle = values;
  middle.data += common.begin * head_dim;
  Multiply<R, false>(shifted, head_dim, common.end - common.begin, middle);
  for (std::size_t r = 0; r < R; ++r) {
    const Tokens late{
        std::max(seen[r].begin, common.end * kDepth<Cell>), seen[r].end};
    AddValues(rows.out[r], rows.left[r], late, values.data, head_dim);
  }
}

/** Blocks of pairs [rows][width] as float32 [2 rows][width]. */
HWY_INLINE void
WidenPairs(const BfPair* from, std::size_t rows, std::size_t width, float* to) {
  const F32 d;
  const U32 du;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t row = 0; row < rows; ++row, from += width, to += 2 * width) {
    for (std::size_t i = 0; i < width; i += lanes) {
      const std::size_t n = std::min(lanes, width - i);
      const VU32 pairs = hn::LoadN(du, from + i, n);
      const VU32 odd = hn::And(pairs, hn::Set(du, kOddHalf));
      hn::StoreN(hn::BitCast(d, hn::ShiftLeft<16>(pairs)), d, to + i, n);
      hn::StoreN(hn::BitCast(d, odd), d, to + width + i, n);
    }
  }
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
