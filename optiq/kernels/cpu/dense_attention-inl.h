// Products of queries with float32 or bfloat16 blocks; included once per SIMD
// target.
#if defined(OPTIQ_KERNELS_CPU_DENSE_ATTENTION_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_DENSE_ATTENTION_INL_H_
#undef OPTIQ_KERNELS_CPU_DENSE_ATTENTION_INL_H_
#else
#define OPTIQ_KERNELS_CPU_DENSE_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <cstddef>

#include "hwy/highway.h"

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

/** To the second-level cache: what is read next but one. A hint to the first
 * level evicts what is in use (0.55 instead of 0.8 of the bandwidth). */
HWY_INLINE void PrefetchFar(const void* p) {
  __builtin_prefetch(p, 0, 2);
}

/** Left factors of up to kMaxQueries rows, and where their results go. */
struct Rows {
  const float* left[kMaxQueries];
  float* out[kMaxQueries];
};

/** A matrix [depth][stride], and memory to fetch while it is read. */
template <class Kv>
struct Right {
  const Kv* data = nullptr;
  std::size_t stride = 0;
  const std::byte* next = nullptr; // as many bytes; null: nothing to fetch
};

/**
 * out[r][0 .. V lanes) += sum_i left[r][i] * right[i][...] with i ascending in
 * one chain per element, whatever R and V. `last` lanes of the only vector
 * count when kPartial.
 */
template <std::size_t R, std::size_t V, bool kPartial, class Kv>
HWY_INLINE void MultiplyStrip(
    const Rows& rows,
    std::size_t column,
    std::size_t depth,
    const Right<Kv>& right,
    std::size_t last) {
  static_assert(!kPartial || V == 1);
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  VF32 sum[R][V];
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t v = 0; v < V; ++v) {
      sum[r][v] = hn::LoadU(d, rows.out[r] + column + v * lanes);
    }
  }
  const Kv* HWY_RESTRICT data = right.data + column;
  const std::byte* next = column == 0 ? right.next : nullptr;
  const std::size_t row_bytes = right.stride * sizeof(Kv);
  for (std::size_t i = 0; i < depth; ++i, data += right.stride) {
    if (next != nullptr) {
      for (std::size_t at = 0; at < row_bytes; at += 64) {
        PrefetchFar(next + i * row_bytes + at);
      }
    }
    VF32 b[V];
    for (std::size_t v = 0; v < V; ++v) {
      if constexpr (kPartial) {
        b[v] = LoadKvN(d, data, last);
      } else {
        b[v] = LoadKv(d, data + v * lanes);
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
    const Right<Kv>& right) {
  const std::size_t lanes = hn::Lanes(F32());
  std::size_t column = 0;
  for (; column + 4 * lanes <= width; column += 4 * lanes) {
    MultiplyStrip<R, 4, false>(rows, column, depth, right, lanes);
  }
  for (; column + lanes <= width; column += lanes) {
    MultiplyStrip<R, 1, false>(rows, column, depth, right, lanes);
  }
  if (column < width) {
    MultiplyStrip<R, 1, true>(rows, column, depth, right, width - column);
  }
}

/** rows.out[r][t] = rows.left[r] . k_t, for the first `most` tokens at least.
 * keys K^T [head_dim][64]. */
template <std::size_t R, class Kv>
HWY_NOINLINE void DenseScores(
    const Rows& rows,
    std::size_t most,
    std::size_t head_dim,
    const Right<Kv>& keys) {
  const std::size_t lanes = hn::Lanes(F32());
  const std::size_t width = (most + lanes - 1) / lanes * lanes;
  for (std::size_t r = 0; r < R; ++r) {
    std::fill_n(rows.out[r], width, 0.0f);
  }
  Multiply<R>(rows, width, head_dim, keys);
}

/** out += sum over `tokens` of p[t] values[t], for one query. */
template <class Kv>
HWY_INLINE void AddValues(
    float* out,
    const float* p,
    Tokens tokens,
    const Right<Kv>& values,
    std::size_t head_dim) {
  if (!tokens.empty()) {
    Rows one;
    one.left[0] = p + tokens.begin;
    one.out[0] = out;
    Multiply<1>(
        one,
        head_dim,
        tokens.end - tokens.begin,
        Right<Kv>{values.data + tokens.begin * head_dim, head_dim});
  }
}

/** rows.out[r] += sum over seen[r] of rows.left[r][t] values[t]. Tokens that
 * some of the queries do not see are added per query: 0 * v would still spread
 * a non-finite v to those. */
template <std::size_t R, class Kv>
HWY_NOINLINE void DenseValues(
    const Rows& rows,
    const Tokens* seen,
    std::size_t head_dim,
    const Right<Kv>& values) {
  Tokens common = seen[0];
  for (std::size_t r = 1; r < R; ++r) {
    common.begin = std::max(common.begin, seen[r].begin);
    common.end = std::min(common.end, seen[r].end);
  }
  common.end = std::max(common.begin, common.end);
  Rows shifted = rows;
  for (std::size_t r = 0; r < R; ++r) {
    shifted.left[r] += common.begin;
    const Tokens early{seen[r].begin, std::min(seen[r].end, common.begin)};
    AddValues(rows.out[r], rows.left[r], early, values, head_dim);
  }
  Right<Kv> middle = values;
  middle.data += common.begin * head_dim;
  Multiply<R>(shifted, head_dim, common.end - common.begin, middle);
  for (std::size_t r = 0; r < R; ++r) {
    const Tokens late{std::max(seen[r].begin, common.end), seen[r].end};
    AddValues(rows.out[r], rows.left[r], late, values, head_dim);
  }
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
