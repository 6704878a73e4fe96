// The cap on attention scores and logits; included once per SIMD target.
#if defined(OPTIQ_KERNELS_CPU_SOFTCAP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_SOFTCAP_INL_H_
#undef OPTIQ_KERNELS_CPU_SOFTCAP_INL_H_
#else
#define OPTIQ_KERNELS_CPU_SOFTCAP_INL_H_
#endif

#include "hwy/highway.h"

#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

/** cap * tanh(x / cap). */
HWY_INLINE VF32 Capped(F32 d, VF32 x, float cap) {
  const VF32 one = hn::Set(d, 1.0f);
  // tanh(u) = (1 - e) / (1 + e) with e = exp(-2 u), u >= 0.
  const VF32 e =
      ExpNonPositive(d, hn::Mul(hn::Abs(x), hn::Set(d, -2.0f / cap)));
  const VF32 t = hn::Div(hn::Sub(one, e), hn::Add(one, e));
  return hn::CopySign(hn::Mul(hn::Set(d, cap), t), x);
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
