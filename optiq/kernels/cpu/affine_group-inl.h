// MLX's affine quantizer of one group, in float32; included once per SIMD
// target. Of the group's extremes the one farther from zero becomes the bias,
// and the scale is bent so that zero is a multiple of it:
//
//   s = max((hi - lo) / n, 1e-7), n = 2^bits - 1, negative unless |lo| > |hi|
//   edge = |lo| > |hi| ? lo : hi,  q0 = round(edge / s)
//   q0 != 0: s = edge / q0, b = edge;  else b = 0
//   code = clamp(round((w - b) / s), 0, n), with s and b before they are
//   rounded to the dtype they are stored in
#if defined(OPTIQ_KERNELS_CPU_AFFINE_GROUP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_AFFINE_GROUP_INL_H_
#undef OPTIQ_KERNELS_CPU_AFFINE_GROUP_INL_H_
#else
#define OPTIQ_KERNELS_CPU_AFFINE_GROUP_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {
namespace affine {

namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, 16>;
constexpr int kN = static_cast<int>(hn::MaxLanes(F()));

HWY_INLINE hn::Vec<F> LoadFloats(const float* p) {
  return hn::LoadU(F(), p);
}
template <class Half>
HWY_INLINE hn::Vec<F> LoadFloats(const Half* p) {
  return hn::PromoteTo(F(), hn::LoadU(hn::Rebind<Half, F>(), p));
}

struct Affine {
  float scale;
  float bias;
};

HWY_INLINE Affine FitGroup(float lo, float hi, float n) {
  const bool negative = std::fabs(lo) > std::fabs(hi);
  float scale = std::max((hi - lo) / n, 1e-7f);
  scale = negative ? scale : -scale;
  const float edge = negative ? lo : hi;
  const float q0 = std::nearbyint(edge / scale);
  if (q0 == 0.f) {
    return {scale, 0.f};
  }
  return {edge / q0, edge};
}

/** One code per byte for `group` values, a multiple of 16. */
template <class T>
HWY_INLINE Affine
QuantizeGroup(const T* values, int group, int bits, std::uint8_t* codes) {
  const F df;
  const hn::RebindToSigned<F> di;
  const hn::Rebind<std::uint8_t, F> d8;
  const float n = static_cast<float>((1 << bits) - 1);
  auto lo = LoadFloats(values);
  auto hi = lo;
  for (int i = kN; i < group; i += kN) {
    const auto v = LoadFloats(values + i);
    lo = hn::Min(lo, v);
    hi = hn::Max(hi, v);
  }
  const Affine fit = FitGroup(hn::ReduceMin(df, lo), hn::ReduceMax(df, hi), n);
  for (int i = 0; i < group; i += kN) {
    const auto w = hn::Sub(LoadFloats(values + i), hn::Set(df, fit.bias));
    const auto q = hn::Round(hn::Div(w, hn::Set(df, fit.scale)));
    const auto in_range = hn::Min(hn::Max(q, hn::Zero(df)), hn::Set(df, n));
    hn::StoreU(hn::DemoteTo(d8, hn::ConvertTo(di, in_range)), d8, codes + i);
  }
  return fit;
}

} // namespace affine
} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
