// Vector arithmetic shared by the CPU kernels; included once per SIMD target.
#if defined(OPTIQ_KERNELS_CPU_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_VECTOR_MATH_INL_H_
#undef OPTIQ_KERNELS_CPU_VECTOR_MATH_INL_H_
#else
#define OPTIQ_KERNELS_CPU_VECTOR_MATH_INL_H_
#endif

#include <cmath>
#include <cstddef>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that the order of a sum is a property of the target.
using F32 = hn::CappedTag<float, 16>;
using VF32 = hn::Vec<F32>;

/**
 * exp(x) for x <= 0, NaN for NaN; 0 below -87 (where the result would be
 * subnormal). exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2)/2,
 * exp(r) = 1 + r + r^2 P(r) with P minimax of degree 4 (4e-9 relative), so the
 * error is that of the last roundings, 1.5 eps.
 */
HWY_INLINE VF32 ExpNonPositive(F32 d, VF32 x) {
  const hn::RebindToUnsigned<F32> du;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low mantissa
  // bits; the extra 127 makes those bits the exponent field of 2^n.
  const VF32 magic = hn::Set(d, 12582912.0f + 127.0f);
  const VF32 shifted = hn::MulAdd(x, hn::Set(d, 0x1.715476p+0f), magic);
  const VF32 n = hn::Sub(shifted, magic);
  VF32 r = hn::NegMulAdd(n, hn::Set(d, 0x1.62e400p-1f), x);
  r = hn::NegMulAdd(n, hn::Set(d, 0x1.7f7d1cp-20f), r);
  VF32 p = hn::Set(d, 0x1.6a242cp-10f);
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.1239e4p-7f));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.5558f2p-5f));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.555492p-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.fffffcp-2f));
  const VF32 e = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const VF32 power =
      hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, shifted)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.0f)), hn::Mul(e, power));
}

/** 1 / (1 + exp(-x)), without overflow and accurate on both tails. */
HWY_INLINE VF32 Sigmoid(F32 d, VF32 x) {
  const VF32 one = hn::Set(d, 1.0f);
  const VF32 e = ExpNonPositive(d, hn::Neg(hn::Abs(x)));
  const VF32 numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one);
  return hn::Div(numerator, hn::Add(one, e));
}

/** x sigmoid(x). */
HWY_INLINE VF32 Silu(F32 d, VF32 x) {
  return hn::Mul(x, Sigmoid(d, x));
}

/** Sum of a_i b_i: four running sums of vectors, tail into the first. */
HWY_INLINE float Dot(F32 d, const float* a, const float* b, std::size_t n) {
  const std::size_t lanes = hn::Lanes(d);
  VF32 s0 = hn::Zero(d);
  VF32 s1 = hn::Zero(d);
  VF32 s2 = hn::Zero(d);
  VF32 s3 = hn::Zero(d);
  std::size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), s0);
    s1 = hn::MulAdd(
        hn::LoadU(d, a + i + lanes), hn::LoadU(d, b + i + lanes), s1);
    s2 = hn::MulAdd(
        hn::LoadU(d, a + i + 2 * lanes), hn::LoadU(d, b + i + 2 * lanes), s2);
    s3 = hn::MulAdd(
        hn::LoadU(d, a + i + 3 * lanes), hn::LoadU(d, b + i + 3 * lanes), s3);
  }
  for (; i < n; i += lanes) {
    s0 = hn::MulAdd(hn::LoadN(d, a + i, n - i), hn::LoadN(d, b + i, n - i), s0);
  }
  return hn::ReduceSum(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

/** What rms_norm multiplies a row by: 1 / sqrt(mean(x^2) + eps). */
HWY_INLINE float InverseRms(F32 d, const float* x, std::size_t n, float eps) {
  const float mean = Dot(d, x, x, n) / static_cast<float>(n);
  return 1.0f / std::sqrt(mean + eps);
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
