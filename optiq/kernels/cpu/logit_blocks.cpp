#include "optiq/kernels/logit_blocks.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/logit_blocks.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/highway.h"

#include "optiq/base/thread_pool.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using cpu::HWY_NAMESPACE::F32;
using cpu::HWY_NAMESPACE::VF32;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr std::size_t kSums = 16; // of floats, whatever the vector's size
constexpr std::size_t kLanes = hn::MaxLanes(F32());

/** a * b + c in two roundings on targets that have one for it, too. */
HWY_INLINE VF32 MulThenAdd(VF32 a, VF32 b, VF32 c) {
  return hn::Add(hn::Mul(a, b), c);
}

/**
 * 2^t for t <= 0, 0 for NaN and below -126, in operations that give the same
 * bits on every target. 2^t = 2^n 2^r, n = round(t), |r| <= 1/2,
 * 2^r = 1 + r P(r) with P minimax of degree 4 (1.1e-7 relative), 1.7e-7 with
 * the roundings; 1 at 0.
 */
HWY_INLINE VF32 Exp2(F32 d, VF32 t) {
  const hn::RebindToUnsigned<F32> du;
  // As in ExpNonPositive, the low bits become the exponent field of 2^n.
  const VF32 magic = hn::Set(d, 12582912.0f + 127.0f);
  const VF32 shifted = hn::Add(t, magic);
  const VF32 r = hn::Sub(t, hn::Sub(shifted, magic));
  VF32 p = hn::Set(d, 0x1.5bba14p-10f);
  p = MulThenAdd(p, r, hn::Set(d, 0x1.3cea88p-7f));
  p = MulThenAdd(p, r, hn::Set(d, 0x1.c6b752p-5f));
  p = MulThenAdd(p, r, hn::Set(d, 0x1.ebf9bcp-3f));
  p = MulThenAdd(p, r, hn::Set(d, 0x1.62e42ap-1f));
  const VF32 e = MulThenAdd(p, r, hn::Set(d, 1.0f));
  const VF32 power =
      hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, shifted)));
  return hn::IfThenElseZero(hn::Ge(t, hn::Set(d, -126.0f)), hn::Mul(e, power));
}

HWY_INLINE VF32 LoadUpTo(F32 d, const float* x, std::size_t n) {
  return n >= kLanes ? hn::LoadU(d, x)
                     : hn::LoadNOr(hn::Set(d, kMinusInfinity), d, x, n);
}

/** The values, -inf behind them: what a block lacks changes no result. */
HWY_INLINE VF32 LoadBlock(F32 d, const float* x, std::size_t i, std::size_t n) {
  return i < n ? LoadUpTo(d, x + i, n - i) : hn::Set(d, kMinusInfinity);
}

HWY_INLINE float LargestOf(const float* x, std::size_t n) {
  const F32 d;
  VF32 largest[4];
  for (VF32& m : largest) {
    m = hn::Set(d, kMinusInfinity);
  }
  for (std::size_t i = 0; i < n; i += 4 * kLanes) {
    for (std::size_t j = 0; j < 4; ++j) {
      const VF32 v = LoadBlock(d, x, i + j * kLanes, n);
      // Not Max: what that makes of NaN depends on the target.
      largest[j] = hn::IfThenElse(hn::Gt(v, largest[j]), v, largest[j]);
    }
  }
  return hn::ReduceMax(
      d,
      hn::Max(
          hn::Max(largest[0], largest[1]), hn::Max(largest[2], largest[3])));
}

/** Sum of term(2^t, t) over n values, t = (x - largest) factor. */
template <typename Term>
HWY_INLINE double SumOfValues(
    const float* x,
    std::size_t n,
    float largest,
    float factor,
    const Term& term) {
  const F32 d;
  const VF32 top = hn::Set(d, largest);
  const VF32 factors = hn::Set(d, factor);
  VF32 sums[kSums / kLanes];
  for (VF32& sum : sums) {
    sum = hn::Zero(d);
  }
  for (std::size_t i = 0; i < n; i += kSums) {
    for (std::size_t j = 0; j < kSums / kLanes; ++j) {
      const VF32 v = LoadBlock(d, x, i + j * kLanes, n);
      const VF32 t = hn::Mul(hn::Sub(v, top), factors);
      sums[j] = hn::Add(sums[j], term(Exp2(d, t), t));
    }
  }
  HWY_ALIGN float parts[kSums];
  for (std::size_t j = 0; j < kSums / kLanes; ++j) {
    hn::Store(sums[j], d, parts + j * kLanes);
  }
  double total[kSums];
  std::copy(parts, parts + kSums, total);
  for (std::size_t half = kSums / 2; half > 0; half /= 2) {
    for (std::size_t j = 0; j < half; ++j) {
      total[j] += total[j + half];
    }
  }
  return total[0];
}

/** Of a block. The length of a whole one is a constant to the compiler. */
template <typename Term>
HWY_INLINE double SumOfBlock(
    const LogitBlocks& row,
    std::size_t block,
    float largest,
    float factor,
    const Term& term) {
  const float* const x = row.blocks[block];
  const std::size_t n = row.size(block);
  return n == kLogitBlock ? SumOfValues(x, kLogitBlock, largest, factor, term)
                          : SumOfValues(x, n, largest, factor, term);
}

void BlockMaxima(const LogitBlocks& row, float* maxima) {
  for (std::size_t b = 0; b < row.blocks.size(); ++b) {
    const std::size_t n = row.size(b);
    maxima[b] = n == kLogitBlock ? LargestOf(row.blocks[b], kLogitBlock)
                                 : LargestOf(row.blocks[b], n);
  }
}

void BlockMasses(
    const LogitBlocks& row,
    std::size_t begin,
    std::size_t end,
    const float* maxima,
    float scale,
    double* masses) {
  const float factor = binary_scale(scale);
  const auto term = [](VF32 e, VF32) HWY_ATTR { return e; };
  for (std::size_t b = begin; b < end; ++b) {
    masses[b] = std::isfinite(maxima[b])
        ? SumOfBlock(row, b, maxima[b], factor, term)
        : 0.0;
  }
}

void BlockDepths(
    const LogitBlocks& row,
    std::size_t begin,
    std::size_t end,
    const float* maxima,
    float scale,
    double* depths) {
  const float factor = binary_scale(scale);
  const auto term = [](VF32 e, VF32 t) HWY_ATTR {
    const auto is_some = hn::Gt(e, hn::Zero(F32())); // t may be -inf
    return hn::IfThenElseZero(is_some, hn::Mul(e, hn::Neg(t)));
  };
  for (std::size_t b = begin; b < end; ++b) {
    depths[b] = std::isfinite(maxima[b])
        ? std::numbers::ln2 * SumOfBlock(row, b, maxima[b], factor, term)
        : 0.0;
  }
}

void ExpLogits(
    const float* x,
    std::size_t n,
    float largest,
    float scale,
    float* weights) {
  const F32 d;
  const VF32 top = hn::Set(d, largest);
  const VF32 factor = hn::Set(d, binary_scale(scale));
  for (std::size_t i = 0; i < n; i += kLanes) {
    const VF32 v = LoadUpTo(d, x + i, n - i);
    const VF32 e = Exp2(d, hn::Mul(hn::Sub(v, top), factor));
    if (n - i >= kLanes) {
      hn::StoreU(e, d, weights + i);
    } else {
      hn::StoreN(e, d, weights + i, n - i);
    }
  }
}

std::size_t FindAtLeast(
    const float* x,
    std::size_t n,
    float threshold,
    std::int32_t first,
    std::int32_t* indices,
    float* values) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const VF32 least = hn::Set(d, threshold);
  std::size_t found = 0;
  for (std::size_t i = 0; i < n; i += kLanes) {
    const VF32 v = LoadUpTo(d, x + i, n - i);
    const auto is_found = hn::And(hn::Ge(v, least), hn::FirstN(d, n - i));
    const auto index = hn::Iota(di, first + static_cast<std::int32_t>(i));
    hn::CompressStore(index, hn::RebindMask(di, is_found), di, indices + found);
    found += hn::CompressStore(v, is_found, d, values + found);
  }
  return found;
}

} // namespace optiq::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels {

HWY_EXPORT(BlockMaxima);
HWY_EXPORT(BlockMasses);
HWY_EXPORT(BlockDepths);
HWY_EXPORT(ExpLogits);
HWY_EXPORT(FindAtLeast);

namespace {

// Blocks whose exponentials are worth a thread: more than ten microseconds. Of
// a row of 250,000, maxima take that long altogether.
constexpr std::size_t kGrain = 256;

} // namespace

float binary_scale(float scale) {
  return std::min(
      scale * std::numbers::log2e_v<float>, std::numeric_limits<float>::max());
}

void block_maxima(const LogitBlocks& row, std::span<float> maxima) {
  HWY_DYNAMIC_DISPATCH(BlockMaxima)(row, maxima.data());
}

void block_masses(
    const LogitBlocks& row,
    std::span<const float> maxima,
    float scale,
    std::span<double> masses) {
  const auto call = HWY_DYNAMIC_POINTER(BlockMasses);
  parallel_for(
      row.blocks.size(), kGrain, [&](std::size_t begin, std::size_t end) {
        call(row, begin, end, maxima.data(), scale, masses.data());
      });
}

void block_depths(
    const LogitBlocks& row,
    std::span<const float> maxima,
    float scale,
    std::span<double> depths) {
  const auto call = HWY_DYNAMIC_POINTER(BlockDepths);
  parallel_for(
      row.blocks.size(), kGrain, [&](std::size_t begin, std::size_t end) {
        call(row, begin, end, maxima.data(), scale, depths.data());
      });
}

void exp_logits(
    std::span<const float> logits,
    float largest,
    float scale,
    std::span<float> weights) {
  HWY_DYNAMIC_DISPATCH(ExpLogits)
  (logits.data(), logits.size(), largest, scale, weights.data());
}

std::size_t find_at_least(
    std::span<const float> logits,
    float threshold,
    std::int32_t first,
    std::span<std::int32_t, kFoundRoom> indices,
    std::span<float, kFoundRoom> values) {
  return HWY_DYNAMIC_DISPATCH(FindAtLeast)(
      logits.data(),
      logits.size(),
      threshold,
      first,
      indices.data(),
      values.data());
}

} // namespace optiq::kernels
#endif
