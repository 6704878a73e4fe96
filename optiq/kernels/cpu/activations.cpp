#include "optiq/kernels/cpu/activations.h"

#include <algorithm>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/activations.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {

using I = hn::RebindToSigned<F32>;

constexpr int kMostUnit = 64;
constexpr int kMostRows = 8; // of a block
constexpr int kMostDigits = 2;

// Below this a unit counts as zero: 1 / scale would leave the float range.
constexpr float kTiniest = 1e-30f;

/** One unit of one row, in the making. */
struct Unit {
  alignas(64) float values[kMostUnit];
  alignas(64) std::int8_t planes[kMostDigits * kMostUnit]; // digit by digit
  float scale;
  float sum;
};

/** Loads the values, normalized as rms_norm does it, and returns max |x| as
 * float bits: they order like the values, and NaN above infinity, where a float
 * max would lose it. */
HWY_INLINE std::int32_t LoadUnit(
    const float* x,
    const float* weight,
    float inverse_rms,
    int unit,
    Unit& to) {
  const F32 df;
  const I di;
  const auto mask = hn::Set(di, 0x7fffffff);
  const auto inverse = hn::Set(df, inverse_rms);
  auto most = hn::Zero(di);
  for (int i = 0; i < unit; i += static_cast<int>(hn::Lanes(df))) {
    auto v = hn::LoadU(df, x + i);
    if (weight != nullptr) {
      v = hn::Mul(hn::Mul(v, inverse), hn::LoadU(df, weight + i));
    }
    hn::Store(v, df, to.values + i);
    most = hn::Max(most, hn::And(hn::BitCast(di, v), mask));
  }
  return hn::ReduceMax(di, most);
}

/** Rounds value * inverse into `digits` int8 planes; returns the integer sum.
 */
HWY_INLINE std::int32_t
RoundUnit(float inverse, int unit, int digits, Unit& to) {
  const F32 df;
  const I di;
  const hn::Rebind<std::int8_t, I> d8;
  auto sum = hn::Zero(di);
  for (int i = 0; i < unit; i += static_cast<int>(hn::Lanes(di))) {
    const auto v = hn::NearestInt(
        hn::Mul(hn::Load(df, to.values + i), hn::Set(df, inverse)));
    sum = hn::Add(sum, v);
    if (digits == 1) {
      hn::StoreU(hn::DemoteTo(d8, v), d8, to.planes + i);
    } else {
      const auto h = hn::ShiftRight<8>(hn::Add(v, hn::Set(di, 128)));
      const auto l = hn::Sub(v, hn::ShiftLeft<8>(h));
      hn::StoreU(hn::DemoteTo(d8, h), d8, to.planes + i);
      hn::StoreU(hn::DemoteTo(d8, l), d8, to.planes + unit + i);
    }
  }
  return hn::ReduceSum(di, sum);
}

HWY_INLINE void
QuantizeUnit(std::int32_t most_bits, int unit, int digits, Unit& to) {
  // 127 * 256 + 127 is the largest value whose two digits both fit.
  const float most = digits == 1 ? 127.f : 32639.f;
  const auto peak = hwy::BitCastScalar<float>(most_bits);
  const bool finite = peak <= std::numeric_limits<float>::max();
  if (finite && peak >= kTiniest) {
    to.scale = peak / most;
    to.sum =
        to.scale * static_cast<float>(RoundUnit(most / peak, unit, digits, to));
  } else {
    std::memset(to.planes, 0, sizeof(to.planes));
    to.scale = to.sum = finite ? 0.f : std::numeric_limits<float>::quiet_NaN();
  }
}

/** The planes of one row to its place among `rows` interleaved ones. */
HWY_INLINE void PlaceCells(
    const Unit& from,
    int unit,
    int digits,
    int rows,
    std::int32_t* cell) {
  if (digits * rows == 1) {
    std::memcpy(cell, from.planes, unit);
    return;
  }
  for (int q = 0; q < unit / 4; ++q) {
    for (int d = 0; d < digits; ++d) {
      std::memcpy(cell, from.planes + d * unit + 4 * q, 4);
      cell += rows;
    }
  }
}

/** One unit of all rows of a block; rows that only pad it are zero. */
void QuantizeTask(
    const float* x,
    const float* weight,
    const float* inverse_rms,
    const Activations& to,
    int block,
    std::size_t u) {
  const ActivationLayout& layout = to.layout;
  const int unit = layout.unit;
  const int rows = layout.rows_of_block(block);
  std::int32_t* cells = to.cells + layout.cell_offset(block) +
      u * (unit / 4) * layout.digits * rows;
  float* scales = to.scales + layout.scale_offset(block) + u * 2 * rows;
  Unit work;
  for (int r = 0; r < rows; ++r) {
    std::int32_t most = 0;
    if (block + r < layout.rows) {
      const float* in =
          x + static_cast<std::size_t>(block + r) * layout.cols + u * unit;
      most = LoadUnit(
          in,
          weight == nullptr ? nullptr : weight + u * unit,
          inverse_rms[r],
          unit,
          work);
    }
    QuantizeUnit(most, unit, layout.digits, work);
    PlaceCells(work, unit, layout.digits, rows, cells + r);
    scales[r] = work.scale;
    scales[rows + r] = work.sum;
  }
}

void QuantizeActivations(
    const float* x,
    const RowNorm& norm,
    const Activations& to,
    std::size_t first,
    std::size_t last) {
  const ActivationLayout& layout = to.layout;
  const std::size_t units = layout.units();
  const std::size_t cols = layout.cols;
  float inverse_rms[kMostRows] = {};
  if (norm.weight == nullptr) {
    // Unit by unit: a rank quantizes about the columns that it computed, which
    // are in its own cache.
    const std::size_t blocks = layout.blocks();
    for (std::size_t task = first; task < last; ++task) {
      const int block = static_cast<int>(task % blocks) * layout.block_rows;
      QuantizeTask(x, nullptr, inverse_rms, to, block, task / blocks);
    }
    return;
  }
  for (std::size_t task = first; task < last; ++task) {
    const int block = static_cast<int>(task / units) * layout.block_rows;
    if (task == first || task % units == 0) {
      const int rows = std::min(layout.block_rows, layout.rows - block);
      for (int r = 0; r < rows; ++r) {
        inverse_rms[r] =
            InverseRms(F32(), x + (block + r) * cols, cols, norm.eps);
      }
    }
    QuantizeTask(x, norm.weight, inverse_rms, to, block, task % units);
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
    const RowNorm& norm,
    const Activations& to,
    std::size_t first,
    std::size_t last) {
  HWY_DYNAMIC_DISPATCH(QuantizeActivations)(x, norm, to, first, last);
}

} // namespace optiq::kernels::cpu
#endif
