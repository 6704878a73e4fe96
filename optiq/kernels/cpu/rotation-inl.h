// Turbo's rotations of one vector; included once per SIMD target.
//
// Hadamard: a round flips signs, then transforms runs whose lengths are powers
// of two. A dim that is not one (80 = 64 + 16) takes two rounds, the second
// with its runs in the other order, so that every channel meets every other.
#if defined(OPTIQ_KERNELS_CPU_ROTATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_ROTATION_INL_H_
#undef OPTIQ_KERNELS_CPU_ROTATION_INL_H_
#else
#define OPTIQ_KERNELS_CPU_ROTATION_INL_H_
#endif

#include <bit>
#include <cmath>
#include <cstddef>

#include "hwy/highway.h"

#include "optiq/kernels/cpu/kv_layout.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

/** Sums and differences of lanes that differ in bit kBit of their index. */
template <std::size_t kBit>
HWY_INLINE VF32 ButterflyLanes(F32 d, VF32 v) {
  const hn::RebindToSigned<F32> di;
  const auto upper = hn::Ne(
      hn::And(hn::Iota(di, 0), hn::Set(di, static_cast<std::int32_t>(kBit))),
      hn::Zero(di));
  VF32 other = v;
  if constexpr (kBit == 1) {
    other = hn::Reverse2(d, v);
  } else if constexpr (kBit == 2) {
    other = hn::Shuffle1032(v);
  } else if constexpr (kBit == 4) {
    other = hn::SwapAdjacentBlocks(v);
  } else {
    other = hn::ConcatLowerUpper(d, v, v);
  }
  const VF32 signed_v = hn::IfThenElse(hn::RebindMask(d, upper), hn::Neg(v), v);
  return hn::Add(signed_v, other);
}

/** Walsh-Hadamard transform of n values in place, scaled to keep lengths. n is
 * a power of two and a multiple of 16. */
HWY_INLINE void Hadamard(float* x, std::size_t n) {
  const F32 d;
  constexpr std::size_t kMaxLanes = hn::MaxLanes(F32());
  const std::size_t lanes = hn::Lanes(d);
  const VF32 scale = hn::Set(d, 1.0f / std::sqrt(static_cast<float>(n)));
  for (std::size_t i = 0; i < n; i += lanes) {
    VF32 v = hn::Mul(hn::LoadU(d, x + i), scale);
    if constexpr (kMaxLanes >= 2) {
      v = ButterflyLanes<1>(d, v);
    }
    if constexpr (kMaxLanes >= 4) {
      v = ButterflyLanes<2>(d, v);
    }
    if constexpr (kMaxLanes >= 8) {
      v = ButterflyLanes<4>(d, v);
    }
    if constexpr (kMaxLanes >= 16) {
      v = ButterflyLanes<8>(d, v);
    }
    hn::StoreU(v, d, x + i);
  }
  for (std::size_t half = lanes; half < n; half *= 2) {
    for (std::size_t at = 0; at < n; at += 2 * half) {
      for (std::size_t i = at; i < at + half; i += lanes) {
        const VF32 a = hn::LoadU(d, x + i);
        const VF32 b = hn::LoadU(d, x + i + half);
        hn::StoreU(hn::Add(a, b), d, x + i);
        hn::StoreU(hn::Sub(a, b), d, x + i + half);
      }
    }
  }
}

/** Transforms the runs of dim: long ones first, or last. */
HWY_INLINE void HadamardRuns(float* x, std::size_t dim, bool long_first) {
  std::size_t at = 0;
  for (std::size_t left = dim; left > 0;) {
    const std::size_t run =
        long_first ? std::bit_floor(left) : left & (~left + 1);
    Hadamard(x + at, run);
    at += run;
    left -= run;
  }
}

HWY_INLINE void FlipSigns(float* x, const float* signs, std::size_t dim) {
  const F32 d;
  for (std::size_t i = 0; i < dim; i += hn::Lanes(d)) {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + i), hn::LoadU(d, signs + i)), d, x + i);
  }
}

/** to = sum_i from[i] matrix[i][...]; dim is even. */
HWY_INLINE void
Combine(const float* from, const float* matrix, std::size_t dim, float* to) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t at = 0; at < dim; at += lanes) {
    VF32 even = hn::Zero(d);
    VF32 odd = hn::Zero(d);
    for (std::size_t i = 0; i + 1 < dim; i += 2) {
      const float* m = matrix + i * dim + at;
      even = hn::MulAdd(hn::Set(d, from[i]), hn::LoadU(d, m), even);
      odd = hn::MulAdd(hn::Set(d, from[i + 1]), hn::LoadU(d, m + dim), odd);
    }
    hn::StoreU(hn::Add(even, odd), d, to + at);
  }
}

/** to [dim] = the rotation of from, or the inverse's. They do not overlap. */
HWY_INLINE void Rotate(
    const RotationView& rotation,
    std::size_t dim,
    bool inverse,
    const float* from,
    float* to) {
  if (!rotation.columns.empty()) {
    const auto matrix = inverse ? rotation.rows : rotation.columns;
    Combine(from, matrix.data(), dim, to);
    return;
  }
  const float* first = rotation.signs.data();
  const bool two_rounds = rotation.signs.size() > dim;
  for (std::size_t i = 0; i < dim; ++i) {
    to[i] = from[i];
  }
  if (!inverse) {
    FlipSigns(to, first, dim);
    HadamardRuns(to, dim, true);
    if (two_rounds) {
      FlipSigns(to, first + dim, dim);
      HadamardRuns(to, dim, false);
    }
    return;
  }
  if (two_rounds) {
    HadamardRuns(to, dim, false);
    FlipSigns(to, first + dim, dim);
  }
  HadamardRuns(to, dim, true);
  FlipSigns(to, first, dim);
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
