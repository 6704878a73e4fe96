#include "optiq/kernels/cpu/elementwise_gradients.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/elementwise_gradients.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/aligned_allocator.h"
#include "hwy/highway.h"

#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {
namespace {

/** f(i, n) for every vector of [0, size), of which the last has n lanes. */
template <class F>
HWY_INLINE void ForVectors(std::size_t size, const F& f) {
  const std::size_t lanes = hn::Lanes(F32());
  for (std::size_t i = 0; i < size; i += lanes) {
    f(i, std::min(lanes, size - i));
  }
}

/** One row: `x` is centered already where the norm centers. */
HWY_INLINE void RmsRow(
    const float* dy,
    const float* x,
    const float* weight,
    float eps,
    std::size_t dim,
    float* dx) {
  const F32 d;
  const float inverse = InverseRms(d, x, dim, eps);
  VF32 sum = hn::Zero(d);
  ForVectors(dim, [&](std::size_t i, std::size_t n) HWY_ATTR {
    const VF32 g =
        hn::Mul(hn::LoadN(d, dy + i, n), hn::LoadN(d, weight + i, n));
    sum = hn::MulAdd(g, hn::LoadN(d, x + i, n), sum);
  });
  const float mean =
      hn::ReduceSum(d, sum) * inverse * inverse / static_cast<float>(dim);
  ForVectors(dim, [&](std::size_t i, std::size_t n) HWY_ATTR {
    const VF32 g =
        hn::Mul(hn::LoadN(d, dy + i, n), hn::LoadN(d, weight + i, n));
    const VF32 y = hn::NegMulAdd(hn::LoadN(d, x + i, n), hn::Set(d, mean), g);
    hn::StoreN(hn::Mul(y, hn::Set(d, inverse)), d, dx + i, n);
  });
}

/** x less its mean. */
HWY_INLINE void Center(const float* x, std::size_t dim, float* to) {
  const F32 d;
  VF32 sum = hn::Zero(d);
  ForVectors(dim, [&](std::size_t i, std::size_t n) HWY_ATTR {
    sum = hn::Add(sum, hn::LoadN(d, x + i, n));
  });
  const VF32 mean = hn::Set(d, hn::ReduceSum(d, sum) / static_cast<float>(dim));
  ForVectors(dim, [&](std::size_t i, std::size_t n) HWY_ATTR {
    hn::StoreN(hn::Sub(hn::LoadN(d, x + i, n), mean), d, to + i, n);
  });
}

void RmsNormGradient(
    const float* dy,
    const float* x,
    const float* weight,
    float eps,
    std::size_t rows,
    std::size_t dim,
    float* dx) {
  for (std::size_t t = 0; t < rows; ++t) {
    RmsRow(dy + t * dim, x + t * dim, weight, eps, dim, dx + t * dim);
  }
}

void LayerNormGradient(
    const float* dy,
    const float* x,
    const float* weight,
    float eps,
    std::size_t rows,
    std::size_t dim,
    float* dx) {
  const auto centered = hwy::AllocateAligned<float>(dim);
  for (std::size_t t = 0; t < rows; ++t) {
    Center(x + t * dim, dim, centered.get());
    float* to = dx + t * dim;
    RmsRow(dy + t * dim, centered.get(), weight, eps, dim, to);
    Center(to, dim, to);
  }
}

/** dgate and dup of act(gate) * up from act and its derivative. */
template <class F>
HWY_INLINE void GluRows(
    const float* dy,
    const float* gate,
    const float* up,
    std::size_t size,
    GluGradient to,
    const F& activation) {
  const F32 d;
  ForVectors(size, [&](std::size_t i, std::size_t n) HWY_ATTR {
    VF32 value = hn::Zero(d);
    VF32 slope = hn::Zero(d);
    activation(hn::LoadN(d, gate + i, n), value, slope);
    const VF32 y = hn::LoadN(d, dy + i, n);
    const VF32 u = hn::LoadN(d, up + i, n);
    hn::StoreN(hn::Mul(hn::Mul(y, u), slope), d, to.gate + i, n);
    hn::StoreN(hn::Mul(y, value), d, to.up + i, n);
  });
}

void SwigluGradient(
    const float* dy,
    const float* gate,
    const float* up,
    std::size_t n,
    GluGradient to) {
  GluRows(dy, gate, up, n, to, [](VF32 g, VF32& value, VF32& slope) HWY_ATTR {
    const F32 d;
    const VF32 s = Sigmoid(d, g);
    value = hn::Mul(g, s);
    slope = hn::MulAdd(value, hn::Sub(hn::Set(d, 1.0f), s), s);
  });
}

void GegluGradient(
    const float* dy,
    const float* gate,
    const float* up,
    std::size_t n,
    GluGradient to) {
  // gelu(g) = g sigmoid(2 u) with 2 u = r g (1 + 0.044715 g^2).
  constexpr float kTwiceRoot = 1.5957691216057307f; // r = 2 sqrt(2 / pi)
  GluRows(dy, gate, up, n, to, [](VF32 g, VF32& value, VF32& slope) HWY_ATTR {
    const F32 d;
    const VF32 one = hn::Set(d, 1.0f);
    const VF32 square = hn::Mul(g, g);
    const VF32 root = hn::Set(d, kTwiceRoot);
    const VF32 cubic =
        hn::MulAdd(square, hn::Set(d, 0.044715f * kTwiceRoot), root);
    const VF32 inner =
        hn::MulAdd(square, hn::Set(d, 3 * 0.044715f * kTwiceRoot), root);
    const VF32 s = Sigmoid(d, hn::Mul(g, cubic));
    value = hn::Mul(g, s);
    slope = hn::MulAdd(hn::Mul(value, hn::Sub(one, s)), inner, s);
  });
}

void SoftcapGradient(
    const float* dy,
    const float* y,
    float cap,
    std::size_t size,
    float* dx) {
  const F32 d;
  ForVectors(size, [&](std::size_t i, std::size_t n) HWY_ATTR {
    const VF32 t = hn::Mul(hn::LoadN(d, y + i, n), hn::Set(d, 1.0f / cap));
    const VF32 slope = hn::NegMulAdd(t, t, hn::Set(d, 1.0f));
    hn::StoreN(hn::Mul(hn::LoadN(d, dy + i, n), slope), d, dx + i, n);
  });
}

void SigmoidGateGradientRows(
    const float* dy,
    const float* x,
    const float* gate,
    std::size_t size,
    SigmoidGateGradient to) {
  const F32 d;
  ForVectors(size, [&](std::size_t i, std::size_t n) HWY_ATTR {
    const VF32 s = Sigmoid(d, hn::LoadN(d, gate + i, n));
    const VF32 dx = hn::Mul(hn::LoadN(d, dy + i, n), s);
    const VF32 rest = hn::Sub(hn::Set(d, 1.0f), s);
    hn::StoreN(
        hn::Mul(hn::Mul(dx, hn::LoadN(d, x + i, n)), rest), d, to.gate + i, n);
    hn::StoreN(dx, d, to.x + i, n);
  });
}

/** exp(logits - log_sum_exp). */
HWY_INLINE VF32 SoftmaxOf(VF32 logits, double log_sum_exp) {
  const F32 d;
  const VF32 log_p =
      hn::Sub(logits, hn::Set(d, static_cast<float>(log_sum_exp)));
  return ExpNonPositive(d, hn::Min(log_p, hn::Zero(d)));
}

void CrossEntropyGradient(
    const float* logits,
    double log_sum_exp,
    std::int32_t label,
    float weight,
    std::size_t width,
    float* to) {
  const F32 d;
  ForVectors(width, [&](std::size_t i, std::size_t n) HWY_ATTR {
    const VF32 p = SoftmaxOf(hn::LoadN(d, logits + i, n), log_sum_exp);
    hn::StoreN(hn::Mul(p, hn::Set(d, weight)), d, to + i, n);
  });
  to[label] -= weight;
}

void KlDivergenceGradient(
    LogitRow reference,
    LogitRow logits,
    float weight,
    std::size_t width,
    float* to) {
  const F32 d;
  ForVectors(width, [&](std::size_t i, std::size_t n) HWY_ATTR {
    const VF32 p =
        SoftmaxOf(hn::LoadN(d, reference.values + i, n), reference.log_sum_exp);
    const VF32 q =
        SoftmaxOf(hn::LoadN(d, logits.values + i, n), logits.log_sum_exp);
    hn::StoreN(hn::Mul(hn::Sub(q, p), hn::Set(d, weight)), d, to + i, n);
  });
}

} // namespace
} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(RmsNormGradient);
HWY_EXPORT(LayerNormGradient);
HWY_EXPORT(SwigluGradient);
HWY_EXPORT(GegluGradient);
HWY_EXPORT(SoftcapGradient);
HWY_EXPORT(SigmoidGateGradientRows);
HWY_EXPORT(CrossEntropyGradient);
HWY_EXPORT(KlDivergenceGradient);

void rms_norm_gradient(
    const float* dy,
    const float* x,
    const float* weight,
    float eps,
    std::size_t rows,
    std::size_t dim,
    float* dx) {
  HWY_DYNAMIC_DISPATCH(RmsNormGradient)(dy, x, weight, eps, rows, dim, dx);
}

void layer_norm_gradient(
    const float* dy,
    const float* x,
    const float* weight,
    float eps,
    std::size_t rows,
    std::size_t dim,
    float* dx) {
  HWY_DYNAMIC_DISPATCH(LayerNormGradient)(dy, x, weight, eps, rows, dim, dx);
}

void swiglu_gradient(
    const float* dy,
    const float* gate,
    const float* up,
    std::size_t n,
    GluGradient to) {
  HWY_DYNAMIC_DISPATCH(SwigluGradient)(dy, gate, up, n, to);
}

void geglu_gradient(
    const float* dy,
    const float* gate,
    const float* up,
    std::size_t n,
    GluGradient to) {
  HWY_DYNAMIC_DISPATCH(GegluGradient)(dy, gate, up, n, to);
}

void softcap_gradient(
    const float* dy,
    const float* y,
    float cap,
    std::size_t n,
    float* dx) {
  HWY_DYNAMIC_DISPATCH(SoftcapGradient)(dy, y, cap, n, dx);
}

void sigmoid_gate_gradient(
    const float* dy,
    const float* x,
    const float* gate,
    std::size_t n,
    SigmoidGateGradient to) {
  HWY_DYNAMIC_DISPATCH(SigmoidGateGradientRows)(dy, x, gate, n, to);
}

void cross_entropy_gradient(
    const float* logits,
    double log_sum_exp,
    std::int32_t label,
    float weight,
    std::size_t width,
    float* to) {
  HWY_DYNAMIC_DISPATCH(CrossEntropyGradient)
  (logits, log_sum_exp, label, weight, width, to);
}

void kl_divergence_gradient(
    LogitRow reference,
    LogitRow logits,
    float weight,
    std::size_t width,
    float* to) {
  HWY_DYNAMIC_DISPATCH(KlDivergenceGradient)
  (reference, logits, weight, width, to);
}

} // namespace optiq::kernels::cpu
#endif
