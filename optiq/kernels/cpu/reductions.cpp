#include "optiq/kernels/cpu/reductions.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/reductions.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

using F64 = hn::CappedTag<double, 8>;
using VF64 = hn::Vec<F64>;
using HalfF32 = hn::Rebind<float, F64>;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/** n values as double, -inf behind them. */
HWY_INLINE VF64 LoadWide(F64 d, const float* x, std::size_t n) {
  const HalfF32 df;
  return hn::PromoteTo(d, hn::LoadNOr(hn::Set(df, kMinusInfinity), df, x, n));
}

/** exp(x), 0 for -inf, NaN for NaN (which the library's Exp turns into 0). */
HWY_INLINE VF64 ExpWide(F64 d, VF64 x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
}

/** Largest value of a row that is not NaN; -inf when there is none. */
HWY_INLINE float Largest(const float* x, std::size_t n) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const VF32 lowest = hn::Set(d, kMinusInfinity);
  VF32 m0 = lowest;
  VF32 m1 = lowest;
  const auto larger = [](VF32 v, VF32 m) HWY_ATTR {
    return hn::IfThenElse(hn::Gt(v, m), v, m);
  };
  std::size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    m0 = larger(hn::LoadU(d, x + i), m0);
    m1 = larger(hn::LoadU(d, x + i + lanes), m1);
  }
  for (; i < n; i += lanes) {
    m0 = larger(hn::LoadNOr(lowest, d, x + i, n - i), m0);
  }
  return hn::ReduceMax(d, hn::Max(m0, m1));
}

/** sum exp(x_i - maximum), two running sums. */
HWY_INLINE double SumExp(const float* x, std::size_t n, double maximum) {
  const F64 d;
  const std::size_t lanes = hn::Lanes(d);
  const VF64 m = hn::Set(d, maximum);
  VF64 s0 = hn::Zero(d);
  VF64 s1 = hn::Zero(d);
  for (std::size_t i = 0; i < n; i += 2 * lanes) {
    s0 = hn::Add(s0, ExpWide(d, hn::Sub(LoadWide(d, x + i, n - i), m)));
    if (i + lanes < n) {
      const VF64 v = LoadWide(d, x + i + lanes, n - i - lanes);
      s1 = hn::Add(s1, ExpWide(d, hn::Sub(v, m)));
    }
  }
  return hn::ReduceSum(d, hn::Add(s0, s1));
}

double LogSumExp(const float* x, std::size_t n) {
  const float maximum = Largest(x, n);
  if (std::isinf(maximum)) {
    // -inf - -inf is no number: a row without finite values is its maximum,
    // unless it holds NaN.
    return std::any_of(x, x + n, [](float v) { return std::isnan(v); })
        ? std::numeric_limits<double>::quiet_NaN()
        : static_cast<double>(maximum);
  }
  return maximum + std::log(SumExp(x, n, maximum));
}

std::int32_t Argmax(const float* x, std::size_t n) {
  const float maximum = Largest(x, n);
  const float* found = std::find(x, x + n, maximum);
  return found == x + n ? 0 : static_cast<std::int32_t>(found - x);
}

double
KlDivergence(const float* reference, const float* logits, std::size_t n) {
  const F64 d;
  const std::size_t lanes = hn::Lanes(d);
  const double reference_lse = LogSumExp(reference, n);
  const double logits_lse = LogSumExp(logits, n);
  const VF64 lse = hn::Set(d, reference_lse);
  const VF64 shift = hn::Set(d, reference_lse - logits_lse);
  VF64 sum = hn::Zero(d);
  for (std::size_t i = 0; i < n; i += lanes) {
    const VF64 r = LoadWide(d, reference + i, n - i);
    const VF64 x = LoadWide(d, logits + i, n - i);
    const VF64 p = ExpWide(d, hn::Sub(r, lse));
    const VF64 term = hn::Mul(p, hn::Sub(hn::Sub(r, x), shift));
    // A token of zero probability adds nothing, whatever its other logit.
    sum = hn::Add(sum, hn::IfThenZeroElse(hn::Eq(p, hn::Zero(d)), term));
  }
  return hn::ReduceSum(d, sum);
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(LogSumExp);
HWY_EXPORT(Argmax);
HWY_EXPORT(KlDivergence);

double log_sum_exp(const float* x, std::size_t n) {
  return HWY_DYNAMIC_DISPATCH(LogSumExp)(x, n);
}

std::int32_t argmax(const float* x, std::size_t n) {
  return HWY_DYNAMIC_DISPATCH(Argmax)(x, n);
}

double
kl_divergence(const float* reference, const float* logits, std::size_t n) {
  return HWY_DYNAMIC_DISPATCH(KlDivergence)(reference, logits, n);
}

} // namespace optiq::kernels::cpu
#endif
