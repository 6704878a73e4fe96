#include "optiq/kernels/cpu/activations.h"

#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/activations.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, 16>;
using I = hn::RebindToSigned<F>;

// Below this a unit counts as zero: 1 / scale would leave the float range.
constexpr float kTiniest = 1e-30f;

/** max |x| of a unit as float bits: they order like the values, and NaN above
 * infinity, where a float max would lose it. */
HWY_INLINE std::int32_t MaxAbsBits(const float* x, int unit) {
  const I di;
  const auto mask = hn::Set(di, 0x7fffffff);
  auto most = hn::Zero(di);
  for (int i = 0; i < unit; i += static_cast<int>(hn::Lanes(di))) {
    const auto bits = hn::BitCast(di, hn::LoadU(F(), x + i));
    most = hn::Max(most, hn::And(bits, mask));
  }
  return hn::ReduceMax(di, most);
}

/** Rounds x * inverse into `digits` int8 planes of `unit` values; returns their
 * integer sum. */
HWY_INLINE std::int32_t RoundUnit(
    const float* x,
    float inverse,
    int unit,
    int digits,
    std::int8_t* planes) {
  const F df;
  const I di;
  const hn::Rebind<std::int8_t, I> d8;
  auto sum = hn::Zero(di);
  for (int i = 0; i < unit; i += static_cast<int>(hn::Lanes(di))) {
    const auto v =
        hn::NearestInt(hn::Mul(hn::LoadU(df, x + i), hn::Set(df, inverse)));
    sum = hn::Add(sum, v);
    if (digits == 1) {
      hn::StoreU(hn::DemoteTo(d8, v), d8, planes + i);
    } else {
      const auto h = hn::ShiftRight<8>(hn::Add(v, hn::Set(di, 128)));
      const auto l = hn::Sub(v, hn::ShiftLeft<8>(h));
      hn::StoreU(hn::DemoteTo(d8, h), d8, planes + i);
      hn::StoreU(hn::DemoteTo(d8, l), d8, planes + unit + i);
    }
  }
  return hn::ReduceSum(di, sum);
}

void QuantizeActivations(
    const float* x,
    const Activations& to,
    std::size_t first,
    std::size_t last) {
  const ActivationLayout& layout = to.layout;
  const int unit = layout.unit;
  const int digits = layout.digits;
  // 127 * 256 + 127 is the largest value whose two digits both fit.
  const float most = digits == 1 ? 127.f : 32639.f;
  const std::size_t units = layout.units();
  for (std::size_t task = first; task < last; ++task) {
    const int row = static_cast<int>(task / units);
    const std::size_t u = task % units;
    const int block = row / layout.block_rows * layout.block_rows;
    const int block_rows = layout.rows_of_block(block);
    alignas(64) std::int8_t planes[2 * 64] = {};
    float scale = 0.f;
    float sum = 0.f;
    if (row < layout.rows) {
      const float* in =
          x + static_cast<std::size_t>(row) * layout.cols + u * unit;
      const auto peak = hwy::BitCastScalar<float>(MaxAbsBits(in, unit));
      if (!(peak <= std::numeric_limits<float>::max())) {
        scale = sum = std::numeric_limits<float>::quiet_NaN();
      } else if (peak >= kTiniest) {
        scale = peak / most;
        sum = scale *
            static_cast<float>(
                  RoundUnit(in, most / peak, unit, digits, planes));
      }
    }
    const std::size_t quads = unit / 4;
    std::int32_t* cell = to.cells + layout.cell_offset(block) +
        u * quads * digits * block_rows + (row - block);
    for (std::size_t q = 0; q < quads; ++q) {
      for (int d = 0; d < digits; ++d) {
        std::memcpy(cell, planes + d * unit + 4 * q, 4);
        cell += block_rows;
      }
    }
    float* scales = to.scales + layout.scale_offset(block) +
        u * 2 * block_rows + (row - block);
    scales[0] = scale;
    scales[block_rows] = sum;
  }
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace optiq::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(QuantizeActivations);

void quantize_activations(
    const float* x,
    const Activations& to,
    std::size_t first,
    std::size_t last) {
  HWY_DYNAMIC_DISPATCH(QuantizeActivations)(x, to, first, last);
}

} // namespace optiq::kernels::cpu
#endif
