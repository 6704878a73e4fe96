#include "optiq/kernels/cpu/affine_quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/affine_quantize.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

// MLX's affine quantizer, in float32. Of the group's extremes the one farther
// from zero becomes the bias, and the scale is bent so that zero is a multiple
// of it:
//
//   s = max((hi - lo) / n, 1e-7), n = 2^bits - 1, negative unless |lo| > |hi|
//   edge = |lo| > |hi| ? lo : hi,  q0 = round(edge / s)
//   q0 != 0: s = edge / q0, b = edge;  else b = 0
//   code = clamp(round((w - b) / s), 0, n), with s and b before they are
//   rounded to the weight's dtype
//
// Codes form a little-endian bit stream.

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, 16>;
constexpr int kN = static_cast<int>(hn::MaxLanes(F()));
constexpr int kMaxGroup = 128;

HWY_INLINE hn::Vec<F> LoadFloats(const float* p) {
  return hn::LoadU(F(), p);
}
template <class Half>
HWY_INLINE hn::Vec<F> LoadFloats(const Half* p) {
  return hn::PromoteTo(F(), hn::LoadU(hn::Rebind<Half, F>(), p));
}

HWY_INLINE void StoreRounded(float value, float* to) {
  *to = value;
}
HWY_INLINE void StoreRounded(float value, hwy::bfloat16_t* to) {
  *to = hwy::BF16FromF32(value);
}
HWY_INLINE void StoreRounded(float value, hwy::float16_t* to) {
  *to = hwy::F16FromF32(value);
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

/** 8 codes into `bits` bytes. */
HWY_INLINE void
PackEight(const std::uint8_t* codes, int bits, std::uint8_t* out) {
  std::uint64_t word = 0;
  for (int i = 0; i < 8; ++i) {
    word |= std::uint64_t{codes[i]} << (bits * i);
  }
  std::memcpy(out, &word, bits);
}

template <class T>
void QuantizeTyped(
    const QuantizeArgs& args,
    std::size_t first,
    std::size_t last) {
  const F df;
  const hn::RebindToSigned<F> di;
  const hn::Rebind<std::uint8_t, F> d8;
  const float n = static_cast<float>((1 << args.bits) - 1);
  const std::size_t code_bytes =
      static_cast<std::size_t>(args.group) * args.bits / 8;
  for (std::size_t g = first; g < last; ++g) {
    const T* values = static_cast<const T*>(args.values) + g * args.group;
    auto lo = LoadFloats(values);
    auto hi = lo;
    for (int i = kN; i < args.group; i += kN) {
      const auto v = LoadFloats(values + i);
      lo = hn::Min(lo, v);
      hi = hn::Max(hi, v);
    }
    const Affine fit =
        FitGroup(hn::ReduceMin(df, lo), hn::ReduceMax(df, hi), n);
    alignas(64) std::uint8_t codes[kMaxGroup];
    for (int i = 0; i < args.group; i += kN) {
      const auto w = hn::Sub(LoadFloats(values + i), hn::Set(df, fit.bias));
      const auto q = hn::Round(hn::Div(w, hn::Set(df, fit.scale)));
      const auto in_range = hn::Min(hn::Max(q, hn::Zero(df)), hn::Set(df, n));
      hn::StoreU(hn::DemoteTo(d8, hn::ConvertTo(di, in_range)), d8, codes + i);
    }
    auto* out = static_cast<std::uint8_t*>(args.codes) + g * code_bytes;
    for (int i = 0; i < args.group; i += 8) {
      PackEight(codes + i, args.bits, out + i / 8 * args.bits);
    }
    StoreRounded(fit.scale, static_cast<T*>(args.scales) + g);
    StoreRounded(fit.bias, static_cast<T*>(args.biases) + g);
  }
}

void QuantizeGroups(
    const QuantizeArgs& args,
    std::size_t first,
    std::size_t last) {
  switch (args.type) {
    case FloatType::BFloat16:
      return QuantizeTyped<hwy::bfloat16_t>(args, first, last);
    case FloatType::Float16:
      return QuantizeTyped<hwy::float16_t>(args, first, last);
    case FloatType::Float32:
      return QuantizeTyped<float>(args, first, last);
  }
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace optiq::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(QuantizeGroups);

void quantize_groups(
    const QuantizeArgs& args,
    std::size_t first,
    std::size_t last) {
  HWY_DYNAMIC_DISPATCH(QuantizeGroups)(args, first, last);
}

} // namespace optiq::kernels::cpu
#endif
