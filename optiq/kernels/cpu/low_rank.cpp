#include "optiq/kernels/cpu/low_rank.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/low_rank.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/highway.h"

#include "optiq/kernels/cpu/prefetch.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

// inner[t][r] = scale * reduce(acc), acc the sum over vectors of inputs, in
//               order, of x[t] * a[r]
// y[t][n]    += sum over r, in order, of inner[t][r] * b[r][n]
//
// One chain of sums per element, whatever shares a tile: a row's bits do not
// depend on the rows beside it. Few rows are bound by the bytes of A and B,
// which are read once, in runs of some hundred bytes: too short for the
// processor to see them coming, so each tile fetches the one that has its place
// in the next term (8 rows of 8 adapters on all linears: 1.23 instead of 1.40
// times base and adapters).

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {

// Rows of x and of A that are multiplied together.
constexpr std::size_t kInnerRows = 4;
constexpr std::size_t kInnerRanks = 4;

// Rows and vectors of y that are summed together: as many as registers hold.
constexpr std::size_t kOuterRows = 2;
constexpr std::size_t kOuterVectors =
    (HWY_MAX_BYTES >= 64 || HWY_ARCH_ARM) ? 8 : 4;

HWY_INLINE VF32 LoadFloats(F32 d, const float* p) {
  return hn::LoadU(d, p);
}
HWY_INLINE VF32 LoadFloats(F32 d, const float* p, std::size_t n) {
  return hn::LoadN(d, p, n);
}
template <class Half>
HWY_INLINE VF32 LoadFloats(F32 d, const Half* p) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<Half, F32>(), p));
}
template <class Half>
HWY_INLINE VF32 LoadFloats(F32 d, const Half* p, std::size_t n) {
  return hn::PromoteTo(d, hn::LoadN(hn::Rebind<Half, F32>(), p, n));
}

/** A tile of the next term, or of the same one where there is none. */
template <class Side>
const Side* TileOf(const LowRankSide& side, std::size_t rank) {
  return static_cast<const Side*>(side.data) +
      rank * static_cast<std::size_t>(side.width);
}

/** T rows of x times R rows of A; fetches as many rows from `ahead` on. */
template <std::size_t T, std::size_t R, class Side>
HWY_INLINE void InnerTile(
    const LowRankTerm& term,
    const float* x,
    std::size_t row,
    std::size_t rank,
    const Side* ahead) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const auto in = static_cast<std::size_t>(term.a.width);
  const Side* a = TileOf<Side>(term.a, rank);
  x += (term.first_row + row) * in;
  VF32 sum[T][R];
  HWY_UNROLL(4)
  for (std::size_t t = 0; t < T; ++t) {
    HWY_UNROLL(4)
    for (std::size_t r = 0; r < R; ++r) {
      sum[t][r] = hn::Zero(d);
    }
  }
  const auto step = [&](const auto&... rest) HWY_ATTR {
    VF32 right[R];
    HWY_UNROLL(4)
    for (std::size_t r = 0; r < R; ++r) {
      right[r] = LoadFloats(d, a + r * in, rest...);
    }
    HWY_UNROLL(4)
    for (std::size_t t = 0; t < T; ++t) {
      const VF32 left = LoadFloats(d, x + t * in, rest...);
      HWY_UNROLL(4)
      for (std::size_t r = 0; r < R; ++r) {
        sum[t][r] = hn::MulAdd(left, right[r], sum[t][r]);
      }
    }
  };
  std::size_t i = 0;
  for (; i + lanes <= in;
       i += lanes, a += lanes, x += lanes, ahead += R * lanes) {
    prefetch_far(ahead, R * lanes * sizeof(Side));
    step();
  }
  if (i < in) {
    step(in - i);
  }
  float* to = term.inner + row * static_cast<std::size_t>(term.a.rank) + rank;
  HWY_UNROLL(4)
  for (std::size_t t = 0; t < T; ++t, to += term.a.rank) {
    HWY_UNROLL(4)
    for (std::size_t r = 0; r < R; ++r) {
      to[r] = term.scale * hn::ReduceSum(d, sum[t][r]);
    }
  }
}

template <std::size_t R, class Side>
void InnerRows(
    const LowRankTerm& term,
    const float* x,
    std::size_t rank,
    const LowRankTerm& next) {
  const Side* ahead = TileOf<Side>(next.a, rank);
  const auto rows = static_cast<std::size_t>(term.rows);
  std::size_t row = 0;
  for (; row + kInnerRows <= rows; row += kInnerRows) {
    InnerTile<kInnerRows, R, Side>(term, x, row, rank, ahead);
  }
  for (; row < rows; ++row) {
    InnerTile<1, R, Side>(term, x, row, rank, ahead);
  }
}

template <class Side>
void MultiplyInnerOf(
    const LowRankTerm& term,
    const float* x,
    std::size_t first,
    std::size_t last,
    const LowRankTerm& next) {
  for (; first + kInnerRanks <= last; first += kInnerRanks) {
    InnerRows<kInnerRanks, Side>(term, x, first, next);
  }
  for (; first < last; ++first) {
    InnerRows<1, Side>(term, x, first, next);
  }
}

void MultiplyInner(
    const LowRankTerm& term,
    const float* x,
    std::size_t first,
    std::size_t last,
    const LowRankTerm& next) {
  switch (term.a.type) {
    case FloatType::BFloat16:
      return MultiplyInnerOf<hwy::bfloat16_t>(term, x, first, last, next);
    case FloatType::Float16:
      return MultiplyInnerOf<hwy::float16_t>(term, x, first, last, next);
    case FloatType::Float32:
      return MultiplyInnerOf<float>(term, x, first, last, next);
  }
}

/** T rows and V vectors of y from `y` on; B from `b` on; fetches as much from
 * `ahead` on. With `rest` only so many lanes of the one vector. */
template <std::size_t T, std::size_t V, class Side, class... Rest>
HWY_INLINE void OuterTile(
    const LowRankTerm& term,
    std::size_t row,
    const Side* b,
    const Side* ahead,
    float* y,
    std::size_t stride,
    Rest... rest) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const auto ranks = static_cast<std::size_t>(term.b.rank);
  const float* inner = term.inner + row * ranks;
  VF32 sum[T][V];
  HWY_UNROLL(4)
  for (std::size_t t = 0; t < T; ++t) {
    HWY_UNROLL(8)
    for (std::size_t v = 0; v < V; ++v) {
      sum[t][v] = hn::Zero(d);
    }
  }
  for (std::size_t r = 0; r < ranks;
       ++r, b += term.b.width, ahead += term.b.width) {
    prefetch_far(ahead, V * lanes * sizeof(Side));
    VF32 left[T];
    HWY_UNROLL(4)
    for (std::size_t t = 0; t < T; ++t) {
      left[t] = hn::Set(d, inner[t * ranks + r]);
    }
    HWY_UNROLL(8)
    for (std::size_t v = 0; v < V; ++v) {
      const VF32 right = LoadFloats(d, b + v * lanes, rest...);
      HWY_UNROLL(4)
      for (std::size_t t = 0; t < T; ++t) {
        sum[t][v] = hn::MulAdd(left[t], right, sum[t][v]);
      }
    }
  }
  HWY_UNROLL(4)
  for (std::size_t t = 0; t < T; ++t, y += stride) {
    HWY_UNROLL(8)
    for (std::size_t v = 0; v < V; ++v) {
      float* const at = y + v * lanes;
      const VF32 all = hn::Add(LoadFloats(d, at, rest...), sum[t][v]);
      if constexpr (sizeof...(rest) > 0) {
        hn::StoreN(all, d, at, rest...);
      } else {
        hn::StoreU(all, d, at);
      }
    }
  }
}

template <std::size_t V, class Side, class... Rest>
void OuterRows(
    const LowRankTerm& term,
    std::size_t column,
    const LowRankTerm& next,
    float* y,
    std::size_t stride,
    Rest... rest) {
  const Side* b = TileOf<Side>(term.b, 0) + column;
  const Side* ahead = TileOf<Side>(next.b, 0) + column;
  const auto rows = static_cast<std::size_t>(term.rows);
  std::size_t row = 0;
  for (; row + kOuterRows <= rows;
       row += kOuterRows, y += kOuterRows * stride) {
    OuterTile<kOuterRows, V>(term, row, b, ahead, y, stride, rest...);
  }
  if (row < rows) {
    OuterTile<1, V>(term, row, b, ahead, y, stride, rest...);
  }
}

template <class Side>
void AddLowRankOf(
    const LowRankTerm& term,
    std::size_t first,
    std::size_t last,
    const Output& to,
    const LowRankTerm& next) {
  const std::size_t lanes = hn::Lanes(F32());
  float* const y = to.y + term.first_row * to.stride;
  std::size_t at = first;
  for (; at + kOuterVectors * lanes <= last; at += kOuterVectors * lanes) {
    OuterRows<kOuterVectors, Side>(term, at, next, y + (at - first), to.stride);
  }
  for (; at + lanes <= last; at += lanes) {
    OuterRows<1, Side>(term, at, next, y + (at - first), to.stride);
  }
  if (at < last) {
    OuterRows<1, Side>(term, at, next, y + (at - first), to.stride, last - at);
  }
}

void AddLowRank(
    const LowRankTerm& term,
    std::size_t first,
    std::size_t last,
    const Output& to,
    const LowRankTerm& next) {
  switch (term.b.type) {
    case FloatType::BFloat16:
      return AddLowRankOf<hwy::bfloat16_t>(term, first, last, to, next);
    case FloatType::Float16:
      return AddLowRankOf<hwy::float16_t>(term, first, last, to, next);
    case FloatType::Float32:
      return AddLowRankOf<float>(term, first, last, to, next);
  }
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace optiq::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(MultiplyInner);
HWY_EXPORT(AddLowRank);

void multiply_inner(
    const LowRankTerm& term,
    const float* x,
    std::size_t first,
    std::size_t last,
    const LowRankTerm* next) {
  HWY_DYNAMIC_DISPATCH(MultiplyInner)
  (term, x, first, last, next == nullptr ? term : *next);
}

void add_low_rank(
    const LowRankTerm& term,
    std::size_t first,
    std::size_t last,
    const Output& to,
    const LowRankTerm* next) {
  HWY_DYNAMIC_DISPATCH(AddLowRank)
  (term, first, last, to, next == nullptr ? term : *next);
}

void fetch_outer(const LowRankTerm& term, std::size_t first, std::size_t last) {
  const std::size_t size = size_of(term.b.type);
  const auto* row = static_cast<const std::byte*>(term.b.data) + first * size;
  for (int r = 0; r < term.b.rank; ++r, row += term.b.width * size) {
    prefetch_far(row, (last - first) * size);
  }
}

} // namespace optiq::kernels::cpu
#endif
