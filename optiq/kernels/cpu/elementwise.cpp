#include "optiq/kernels/cpu/elementwise.h"

#include <algorithm>
#include <cmath>
#include <functional>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/elementwise.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/aligned_allocator.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

#include "optiq/kernels/cpu/softcap-inl.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

void RmsNorm(
    const float* x,
    const float* weight,
    float eps,
    std::size_t rows,
    std::size_t dim,
    float* out) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t t = 0; t < rows; ++t, x += dim, out += dim) {
    const VF32 inverse = hn::Set(d, InverseRms(d, x, dim, eps));
    for (std::size_t i = 0; i < dim; i += lanes) {
      const std::size_t n = std::min(lanes, dim - i);
      const VF32 y = hn::Mul(hn::LoadN(d, x + i, n), inverse);
      hn::StoreN(hn::Mul(y, hn::LoadN(d, weight + i, n)), d, out + i, n);
    }
  }
}

float InverseRmsOf(const float* x, std::size_t n, float eps) {
  return InverseRms(F32(), x, n, eps);
}

void LayerNorm(
    const float* x,
    const float* weight,
    float eps,
    std::size_t rows,
    std::size_t dim,
    float* out) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t t = 0; t < rows; ++t, x += dim, out += dim) {
    VF32 sum = hn::Zero(d);
    for (std::size_t i = 0; i < dim; i += lanes) {
      sum = hn::Add(sum, hn::LoadN(d, x + i, dim - i));
    }
    const VF32 mean =
        hn::Set(d, hn::ReduceSum(d, sum) / static_cast<float>(dim));
    // Of the centered row: the difference of two large sums would cancel.
    for (std::size_t i = 0; i < dim; i += lanes) {
      const std::size_t n = std::min(lanes, dim - i);
      hn::StoreN(hn::Sub(hn::LoadN(d, x + i, n), mean), d, out + i, n);
    }
    RmsNorm(out, weight, eps, 1, dim, out);
  }
}

/** out_i = f(a_i, b_i). */
template <class F>
HWY_INLINE void
Zip(const float* a, const float* b, std::size_t n, float* out, const F& f) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(f(hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, out + i);
  }
  if (i < n) {
    hn::StoreN(
        f(hn::LoadN(d, a + i, n - i), hn::LoadN(d, b + i, n - i)),
        d,
        out + i,
        n - i);
  }
}

void Add(const float* a, const float* b, std::size_t n, float* out) {
  Zip(a, b, n, out, [](VF32 x, VF32 y) HWY_ATTR { return hn::Add(x, y); });
}

void Swiglu(const float* gate, const float* up, std::size_t n, float* out) {
  Zip(gate, up, n, out, [](VF32 g, VF32 u) HWY_ATTR {
    return hn::Mul(Silu(F32(), g), u);
  });
}

void Geglu(const float* gate, const float* up, std::size_t n, float* out) {
  // (1 + tanh(u)) / 2 = sigmoid(2 u), which is exact on both tails.
  constexpr float kTwiceRoot = 1.5957691216057307f; // 2 sqrt(2 / pi)
  Zip(gate, up, n, out, [](VF32 g, VF32 u) HWY_ATTR {
    const F32 d;
    const VF32 cubic = hn::MulAdd(
        hn::Mul(g, g),
        hn::Set(d, 0.044715f * kTwiceRoot),
        hn::Set(d, kTwiceRoot));
    return hn::Mul(hn::Mul(g, Sigmoid(d, hn::Mul(g, cubic))), u);
  });
}

void Softcap(const float* x, float cap, std::size_t n, float* out) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < n; i += lanes) {
    const std::size_t count = std::min(lanes, n - i);
    hn::StoreN(Capped(d, hn::LoadN(d, x + i, count), cap), d, out + i, count);
  }
}

void SigmoidGate(const float* x, const float* gate, std::size_t n, float* out) {
  Zip(x, gate, n, out, [](VF32 v, VF32 g) HWY_ATTR {
    return hn::Mul(v, Sigmoid(F32(), g));
  });
}

/** `scale` times cos and sin of position * frequency_i. The angle is reduced in
 * double: in float a position of 1e5 would leave an error of 4e-3 radians. */
void RopeTable(
    double position,
    const float* frequencies,
    std::size_t half,
    float scale,
    float* cosines,
    float* sines) {
  const hn::CappedTag<double, 8> dd;
  const hn::Rebind<float, decltype(dd)> df;
  const std::size_t lanes = hn::Lanes(dd);
  constexpr double kTwoPi = 6.283185307179586477;
  for (std::size_t i = 0; i < half; i += lanes) {
    const std::size_t n = std::min(lanes, half - i);
    const auto frequency = hn::PromoteTo(dd, hn::LoadN(df, frequencies + i, n));
    const auto angle = hn::Mul(frequency, hn::Set(dd, position));
    const auto turns = hn::Round(hn::Mul(angle, hn::Set(dd, 1.0 / kTwoPi)));
    const auto reduced =
        hn::DemoteTo(df, hn::NegMulAdd(turns, hn::Set(dd, kTwoPi), angle));
    auto sine = hn::Zero(df);
    auto cosine = hn::Zero(df);
    hn::SinCos(df, reduced, sine, cosine);
    const auto factor = hn::Set(df, scale);
    hn::StoreN(hn::Mul(cosine, factor), df, cosines + i, n);
    hn::StoreN(hn::Mul(sine, factor), df, sines + i, n);
  }
}

void RotateHead(
    const float* x,
    const float* cosines,
    const float* sines,
    std::size_t half,
    float* out) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < half; i += lanes) {
    const std::size_t n = std::min(lanes, half - i);
    const VF32 a = hn::LoadN(d, x + i, n);
    const VF32 b = hn::LoadN(d, x + half + i, n);
    const VF32 c = hn::LoadN(d, cosines + i, n);
    const VF32 s = hn::LoadN(d, sines + i, n);
    hn::StoreN(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, out + i, n);
    hn::StoreN(hn::MulAdd(b, c, hn::Mul(a, s)), d, out + half + i, n);
  }
}

/** RotateHead for pairs (2i, 2i + 1). */
void RotatePairs(
    const float* x,
    const float* cosines,
    const float* sines,
    std::size_t half,
    float* out) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    VF32 a = hn::Zero(d);
    VF32 b = hn::Zero(d);
    hn::LoadInterleaved2(d, x + 2 * i, a, b);
    const VF32 c = hn::LoadU(d, cosines + i);
    const VF32 s = hn::LoadU(d, sines + i);
    hn::StoreInterleaved2(
        hn::NegMulAdd(b, s, hn::Mul(a, c)),
        hn::MulAdd(b, c, hn::Mul(a, s)),
        d,
        out + 2 * i);
  }
  for (; i < half; ++i) {
    const float a = x[2 * i];
    const float b = x[2 * i + 1];
    out[2 * i] = a * cosines[i] - b * sines[i];
    out[2 * i + 1] = a * sines[i] + b * cosines[i];
  }
}

void Rope(
    const float* x,
    const std::int32_t* positions,
    const float* inverse_frequencies,
    std::size_t rows,
    const RopeShape& shape,
    float* out) {
  const auto table = hwy::AllocateAligned<float>(2 * shape.half);
  float* cosines = table.get();
  float* sines = cosines + shape.half;
  for (std::size_t t = 0; t < rows; ++t) {
    RopeTable(
        positions[t],
        inverse_frequencies,
        shape.half,
        shape.scale,
        cosines,
        sines);
    if (shape.is_inverse) {
      std::transform(sines, sines + shape.half, sines, std::negate<>());
    }
    for (std::size_t h = 0; h < shape.n_heads; ++h) {
      if (shape.is_interleaved) {
        RotatePairs(x, cosines, sines, shape.half, out);
      } else {
        RotateHead(x, cosines, sines, shape.half, out);
      }
      std::copy(x + 2 * shape.half, x + shape.head_dim, out + 2 * shape.half);
      x += shape.head_dim;
      out += shape.head_dim;
    }
  }
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(RmsNorm);
HWY_EXPORT(InverseRmsOf);
HWY_EXPORT(LayerNorm);
HWY_EXPORT(Add);
HWY_EXPORT(Swiglu);
HWY_EXPORT(Geglu);
HWY_EXPORT(Softcap);
HWY_EXPORT(SigmoidGate);
HWY_EXPORT(Rope);

void rms_norm(
    const float* x,
    const float* weight,
    float eps,
    std::size_t rows,
    std::size_t dim,
    float* out) {
  HWY_DYNAMIC_DISPATCH(RmsNorm)(x, weight, eps, rows, dim, out);
}

float inverse_rms(const float* x, std::size_t n, float eps) {
  return HWY_DYNAMIC_DISPATCH(InverseRmsOf)(x, n, eps);
}

void layer_norm(
    const float* x,
    const float* weight,
    float eps,
    std::size_t rows,
    std::size_t dim,
    float* out) {
  HWY_DYNAMIC_DISPATCH(LayerNorm)(x, weight, eps, rows, dim, out);
}

void add(const float* a, const float* b, std::size_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(Add)(a, b, n, out);
}

void swiglu(const float* gate, const float* up, std::size_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(Swiglu)(gate, up, n, out);
}

void geglu(const float* gate, const float* up, std::size_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(Geglu)(gate, up, n, out);
}

void softcap(const float* x, float cap, std::size_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(Softcap)(x, cap, n, out);
}

void sigmoid_gate(
    const float* x,
    const float* gate,
    std::size_t n,
    float* out) {
  HWY_DYNAMIC_DISPATCH(SigmoidGate)(x, gate, n, out);
}

void rope(
    const float* x,
    const std::int32_t* positions,
    const float* inverse_frequencies,
    std::size_t rows,
    const RopeShape& shape,
    float* out) {
  HWY_DYNAMIC_DISPATCH(Rope)
  (x, positions, inverse_frequencies, rows, shape, out);
}

} // namespace optiq::kernels::cpu
#endif
