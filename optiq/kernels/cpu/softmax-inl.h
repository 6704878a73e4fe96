// Scores of the tokens that a query sees become weights; included once per SIMD
// target.
#if defined(OPTIQ_KERNELS_CPU_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_SOFTMAX_INL_H_
#undef OPTIQ_KERNELS_CPU_SOFTMAX_INL_H_
#else
#define OPTIQ_KERNELS_CPU_SOFTMAX_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>

#include "hwy/highway.h"

#include "optiq/kernels/cpu/dense_attention-inl.h"
#include "optiq/kernels/cpu/softcap-inl.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/** The lanes of [i, i + lanes) that lie in `seen`. */
HWY_INLINE hn::Mask<F32> Seen(F32 d, std::size_t i, Tokens seen) {
  const std::size_t lanes = hn::Lanes(d);
  const auto before = hn::FirstN(d, std::max(seen.begin, i) - i);
  return hn::AndNot(before, hn::FirstN(d, std::min(lanes, seen.end - i)));
}

/** x = body(x, i, all) for the vectors that hold tokens of `seen`; all: only
 * such. x stays in a register where a captured one would go through memory. */
template <class Body>
HWY_INLINE VF32 FoldVectors(VF32 x, Tokens seen, const Body& body) {
  const std::size_t lanes = hn::Lanes(F32());
  std::size_t i = seen.begin / lanes * lanes;
  if (i < seen.begin) {
    x = body(x, i, false);
    i += lanes;
  }
  for (; i + lanes <= seen.end; i += lanes) {
    x = body(x, i, true);
  }
  if (i < seen.end) {
    x = body(x, i, false);
  }
  return x;
}

/** Caps the scores in the vectors that hold tokens of `seen`. */
HWY_INLINE void CapScores(F32 d, float* scores, Tokens seen, float cap) {
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = seen.begin / lanes * lanes; i < seen.end; i += lanes) {
    hn::StoreU(Capped(d, hn::LoadU(d, scores + i), cap), d, scores + i);
  }
}

/** Largest of the scores seen; minus infinity without any. */
HWY_INLINE float MaxScore(F32 d, const float* scores, Tokens seen) {
  const VF32 least = hn::Set(d, -kInfinity);
  const auto body = [=](VF32 largest, std::size_t i, bool all) HWY_ATTR {
    VF32 x = hn::LoadU(d, scores + i);
    if (!all) {
      x = hn::IfThenElse(Seen(d, i, seen), x, least);
    }
    return hn::Max(largest, x);
  };
  return hn::ReduceMax(d, FoldVectors(least, seen, body));
}

HWY_INLINE VF32 StoreWeights(F32 d, VF32 p, float* to) {
  hn::StoreU(p, d, to);
  return p;
}

/** Returns the weights as they are stored. */
HWY_INLINE VF32 StoreWeights(F32 d, VF32 p, BF16* to) {
  const hn::Rebind<BF16, F32> halves;
  const auto rounded = hn::DemoteTo(halves, p);
  hn::StoreU(rounded, halves, to);
  return hn::PromoteTo(d, rounded);
}

/** scores -> weights exp(scores - maximum) in the same memory, zero where not
 * seen; the sum of what they are rounded to. */
template <class Weight>
HWY_INLINE float
ExpScores(F32 d, float* scores, Tokens seen, std::size_t end, float maximum) {
  const std::size_t lanes = hn::Lanes(d);
  const VF32 m = hn::Set(d, maximum);
  // Never ahead of the scores that are still to be read.
  auto* weights = reinterpret_cast<Weight*>(scores);
  std::memset(weights, 0, seen.begin / lanes * lanes * sizeof(Weight));
  const auto body = [=](VF32 sum, std::size_t i, bool all) HWY_ATTR {
    VF32 p = ExpNonPositive(d, hn::Sub(hn::LoadU(d, scores + i), m));
    if (!all) {
      p = hn::IfThenElseZero(Seen(d, i, seen), p);
    }
    return hn::Add(sum, StoreWeights(d, p, weights + i));
  };
  const VF32 sum = FoldVectors(hn::Zero(d), seen, body);
  const std::size_t after = round_up(seen.end, lanes);
  if (after < end) {
    std::memset(weights + after, 0, (end - after) * sizeof(Weight));
  }
  return hn::ReduceSum(d, sum);
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
