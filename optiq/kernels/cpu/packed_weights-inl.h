// The weights of a span as digits (packed_digits-inl.h), before they meet
// packed values; included once per SIMD target. Of a query, a group of channels
// and a block, with one digit:
//
//   w_t = p_t * scale_t           (turbo: norm_t)
//   digit_t = round(w_t * 127 / max |w|)
//   sum_t p_t v_t = (sum_t digit_t (code_t - middle)) * max |w| / 127
//                 + sum_t p_t (bias_t + middle scale_t)     (affine)
//
// The last line does not depend on the channel, so it is summed over the span.
#if defined(OPTIQ_KERNELS_CPU_PACKED_WEIGHTS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_PACKED_WEIGHTS_INL_H_
#undef OPTIQ_KERNELS_CPU_PACKED_WEIGHTS_INL_H_
#else
#define OPTIQ_KERNELS_CPU_PACKED_WEIGHTS_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "optiq/kernels/cpu/attention.h"
#include "optiq/kernels/cpu/attention_scratch_impl.h"
#include "optiq/kernels/cpu/packed_digits-inl.h"
#include "optiq/kernels/cpu/panel_kernel-inl.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

HWY_INLINE VF32 LoadHalf(const hwy::bfloat16_t* p) {
  return hn::PromoteTo(F32(), hn::LoadU(hn::Rebind<hwy::bfloat16_t, F32>(), p));
}
HWY_INLINE VF32 LoadHalf(const hwy::float16_t* p) {
  return hn::PromoteTo(F32(), hn::LoadU(hn::Rebind<hwy::float16_t, F32>(), p));
}

/** Codes are taken from here: half the range, so that what rounds the weights
 * meets half the codes. */
HWY_INLINE int MiddleCode(const KvSide& side) {
  return side.code == KvCode::Affine ? 1 << (side.bits - 1) : 128;
}

/** The scales of a block and a group, and what a weight of 1 adds to any
 * channel when the code is the middle one. */
struct BlockScales {
  VF32 scale[kBlockTokens / kLanes];
  VF32 center[kBlockTokens / kLanes];
};

template <bool kAffine>
HWY_INLINE BlockScales LoadScales(const std::byte* params, int middle) {
  const F32 d;
  BlockScales to;
  for (std::size_t v = 0; v < kBlockTokens / kLanes; ++v) {
    if constexpr (kAffine) {
      const auto* scale =
          reinterpret_cast<const hwy::bfloat16_t*>(params) + v * kLanes;
      to.scale[v] = LoadHalf(scale);
      to.center[v] = hn::MulAdd(
          to.scale[v],
          hn::Set(d, static_cast<float>(middle)),
          LoadHalf(scale + kBlockTokens));
    } else {
      to.scale[v] = LoadHalf(
          reinterpret_cast<const hwy::float16_t*>(params) + v * kLanes);
      // A NaN makes the sum NaN, where a maximum may lose it.
      to.center[v] = hn::Mul(to.scale[v], hn::Zero(d));
    }
  }
  return to;
}

/** Digits of the query's weights p [64] of a block of the span. p is zero where
 * the query does not see; what scales hold there is not read. */
template <int kDigits, int kPlanes>
HWY_INLINE void WeighBlock(
    const BlockScales& scales,
    int middle,
    const float* p,
    std::size_t block,
    SpanWeights<kDigits>& to) {
  const F32 d;
  const DigitI32 di;
  constexpr std::size_t kN = kBlockTokens / kLanes;
  VF32 w[kN];
  VF32 largest = hn::Zero(d);
  VF32 after = hn::Load(d, to.after);
  for (std::size_t v = 0; v < kN; ++v) {
    const VF32 pv = hn::LoadU(d, p + v * kLanes);
    const auto used = hn::Ne(pv, hn::Zero(d));
    w[v] = hn::IfThenElseZero(used, hn::Mul(pv, scales.scale[v]));
    after =
        hn::IfThenElse(used, hn::MulAdd(pv, scales.center[v], after), after);
    largest = hn::Max(largest, hn::Abs(w[v]));
  }
  hn::Store(after, d, to.after);
  const float most = hn::ReduceMax(d, largest);
  const bool counts = most >= kTiniestWeight;
  const VF32 inverse =
      hn::Set(d, counts ? kLargestDigits<kDigits> / most : 0.0f);
  hn::Vec<DigitI32> sums[kDigits];
  std::fill_n(sums, kDigits, hn::Zero(di));
  for (std::size_t v = 0; v < kN; ++v) {
    StoreDigits<kDigits>(
        w[v],
        inverse,
        to.digits[0] + block * kBlockTokens + v * kLanes,
        kSpanTokens,
        sums);
  }
  to.scale[block] = counts ? most * (1.0f / 127.0f) : 0.0f;
  for (int i = 0; i < kDigits; ++i) {
    if (i > 0 && kPlanes > 1) { // a place has the products of digits before
      sums[i] = hn::Add(sums[i], sums[i - 1]);
    }
    // Digits of what is no number hold anything; their sum may wrap.
    const auto sum = static_cast<std::uint32_t>(hn::ReduceSum(di, sums[i]));
    to.before[block][i] = static_cast<std::int32_t>(
        0U - static_cast<std::uint32_t>(middle) * sum);
  }
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
