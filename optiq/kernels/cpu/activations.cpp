#include "optiq/kernels/cpu/activations.h"

#include <algorithm>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/activations.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

#include "optiq/kernels/cpu/amx.h"
#include "optiq/kernels/cpu/panels.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {

using I = hn::RebindToSigned<F32>;

constexpr int kMostUnit = 64;
constexpr int kMostDigits = 2;

// Below this a unit counts as zero: 1 / scale would leave the float range.
constexpr float kTiniest = 1e-30f;

/** One unit of a block of rows, in the making. */
struct Work {
  alignas(64) float values[kMostBlockRows][kMostUnit];
  alignas(64) std::uint8_t planes[kMostDigits][kMostBlockRows][kMostUnit];
};

/** One row of it: its values, and where its bytes go. */
struct RowWork {
  const float* values;
  std::uint8_t* planes[kMostDigits];
};

/** Loads the values, normalized as rms_norm does it, and returns max |x| as
 * float bits: they order like the values, and NaN above infinity, where a float
 * max would lose it. */
template <int kUnit>
HWY_INLINE std::int32_t LoadUnit(
    const float* x,
    const float* weight,
    float inverse_rms,
    float* values) {
  const F32 df;
  const I di;
  const auto mask = hn::Set(di, 0x7fffffff);
  const auto inverse = hn::Set(df, inverse_rms);
  auto most = hn::Zero(di);
  HWY_UNROLL(4)
  for (int i = 0; i < kUnit; i += static_cast<int>(hn::Lanes(df))) {
    auto v = hn::LoadU(df, x + i);
    if (weight != nullptr) {
      v = hn::Mul(hn::Mul(v, inverse), hn::LoadU(df, weight + i));
    }
    hn::Store(v, df, values + i);
    most = hn::Max(most, hn::And(hn::BitCast(di, v), mask));
  }
  return hn::ReduceMax(di, most);
}

/** How values are kept. */
enum class Form { OneDigit, TwoDigits, Words };
template <Form kForm>
constexpr int kDigits = kForm == Form::OneDigit ? 1 : 2;

/** Keeps a vector of words, of which values 4 i to 4 i + 3 go in the order 0,
 * 2, 1, 3: half a chunk is a plane's. */
template <class V>
HWY_INLINE void StoreWords(V v, std::size_t i, const RowWork& row) {
  const hn::Rebind<std::uint16_t, hn::DFromV<V>> d16;
  constexpr std::size_t kHalf = kChunkInputs / 2;
  std::uint8_t* const to = row.planes[i % kChunkInputs / kHalf] +
      i / kChunkInputs * kChunkInputs + i % kHalf * 2;
  hn::StoreU(
      hn::TruncateTo(d16, hn::Per4LaneBlockShuffle<3, 1, 2, 0>(v)),
      d16,
      reinterpret_cast<std::uint16_t*>(to));
}

/** Rounds value * inverse into planes; returns the integer sum. */
template <int kUnit, Form kForm>
HWY_INLINE std::int32_t RoundUnit(float inverse, const RowWork& row) {
  // Adding it rounds |x| < 2^22 to even and leaves the integer in the low bits.
  constexpr float kMagic = 12582912.f; // 1.5 * 2^23
  constexpr std::uint32_t kMagicBits = 0x4b400000;
  const F32 df;
  const I di;
  const hn::RebindToUnsigned<I> du;
  const hn::Rebind<std::uint8_t, I> d8;
  auto sum = hn::Zero(du);
  HWY_UNROLL(4)
  for (int i = 0; i < kUnit; i += static_cast<int>(hn::Lanes(di))) {
    const auto x = hn::Mul(hn::Load(df, row.values + i), hn::Set(df, inverse));
    const auto v = hn::BitCast(du, hn::Add(x, hn::Set(df, kMagic)));
    sum = hn::Add(sum, v);
    // 256 * h + l with l in [-128, 127]: l is the last byte, and h the one
    // before it after adding 128.
    if constexpr (kForm == Form::Words) {
      StoreWords(v, i, row);
    } else {
      if constexpr (kForm == Form::TwoDigits) {
        const auto h = hn::ShiftRight<8>(hn::Add(v, hn::Set(du, 128)));
        hn::StoreU(hn::TruncateTo(d8, h), d8, row.planes[0] + i);
      }
      hn::StoreU(hn::TruncateTo(d8, v), d8, row.planes[kDigits<kForm> - 1] + i);
    }
  }
  return static_cast<std::int32_t>(hn::ReduceSum(du, sum) - kUnit * kMagicBits);
}

/** Fills a row of the planes, its scale and its integer sum. */
template <int kUnit, Form kForm>
HWY_INLINE void QuantizeRow(
    std::int32_t most_bits,
    const RowWork& row,
    float& scale,
    std::int32_t& sum) {
  // 127 * 256 + 127 is the largest value whose two digits both fit.
  constexpr float kMost = kDigits<kForm> == 1 ? 127.f : 32639.f;
  const auto peak = hwy::BitCastScalar<float>(most_bits);
  const bool finite = peak <= std::numeric_limits<float>::max();
  if (finite && peak >= kTiniest) {
    scale = peak / kMost;
    sum = RoundUnit<kUnit, kForm>(kMost / peak, row);
    return;
  }
  for (int d = 0; d < kDigits<kForm>; ++d) {
    std::memset(row.planes[d], 0, kUnit);
  }
  scale = finite ? 0.f : std::numeric_limits<float>::quiet_NaN();
  sum = 0;
}

/** Cells of 32 inputs of kRows rows, row after row per quad. */
template <int kRows>
HWY_INLINE void PlaceChunk(
    const std::uint8_t* plane,
    std::int32_t* HWY_RESTRICT cell) {
  const hn::CappedTag<std::int32_t, kChunkInputs / 4> d;
  const hn::RepartitionToWide<decltype(d)> d_pairs;
  const hn::Repartition<std::uint8_t, decltype(d)> d8;
  for (std::size_t at = 0; at < kChunkInputs; at += 4 * hn::Lanes(d)) {
    hn::Vec<decltype(d)> v[kRows];
    for (std::size_t r = 0; r < kRows; ++r) {
      v[r] = hn::BitCast(d, hn::Load(d8, plane + r * kMostUnit + at));
    }
    std::int32_t* const to = cell + at / 4 * kRows;
    if constexpr (kRows == 1) {
      hn::StoreU(v[0], d, to);
    } else if constexpr (kRows == 2) {
      hn::StoreInterleaved2(v[0], v[1], d, to);
    } else if constexpr (kRows == 3) {
      hn::StoreInterleaved3(v[0], v[1], v[2], d, to);
    } else if constexpr (kRows == 4) {
      hn::StoreInterleaved4(v[0], v[1], v[2], v[3], d, to);
    } else {
      hn::Vec<decltype(d_pairs)> lower[4];
      hn::Vec<decltype(d_pairs)> upper[4];
      for (int p = 0; p < 4; ++p) {
        lower[p] = hn::BitCast(
            d_pairs, hn::InterleaveWholeLower(d, v[2 * p], v[2 * p + 1]));
        upper[p] = hn::BitCast(
            d_pairs, hn::InterleaveWholeUpper(d, v[2 * p], v[2 * p + 1]));
      }
      auto* const pairs = reinterpret_cast<std::int64_t*>(to);
      hn::StoreInterleaved4(
          lower[0], lower[1], lower[2], lower[3], d_pairs, pairs);
      hn::StoreInterleaved4(
          upper[0],
          upper[1],
          upper[2],
          upper[3],
          d_pairs,
          pairs + 4 * hn::Lanes(d_pairs));
    }
  }
}

/** One unit of all rows of a block. */
template <int kUnit, Form kForm, int kRows>
void QuantizeTask(
    const float* x,
    const float* weight,
    const float* inverse_rms,
    const Activations& to,
    int block,
    std::size_t u) {
  const ActivationLayout& layout = to.layout;
  Work work;
  const int rows = layout.rows_of_block(block);
  std::int32_t most[kRows] = {}; // a row that is not there is a row of zeros
  for (int r = 0; r < kRows && r < rows; ++r) {
    most[r] = LoadUnit<kUnit>(
        x + static_cast<std::size_t>(block + r) * layout.cols + u * kUnit,
        weight == nullptr ? nullptr : weight + u * kUnit,
        inverse_rms[r],
        work.values[r]);
  }
  float* const scales = to.scales + layout.scale_offset(block) + u * 2 * kRows;
  std::int32_t sums[kRows];
  for (int r = 0; r < kRows; ++r) {
    const RowWork row{work.values[r], {work.planes[0][r], work.planes[1][r]}};
    QuantizeRow<kUnit, kForm>(most[r], row, scales[r], sums[r]);
  }
  for (int r = 0; r < kRows; ++r) {
    scales[kRows + r] = scales[r] * static_cast<float>(sums[r]);
  }
  std::int32_t* cell = to.cells + layout.cell_offset(block) +
      u * (kUnit / 4) * kDigits<kForm> * kRows;
  for (int at = 0; at < kUnit; at += kChunkInputs) {
    for (int d = 0; d < kDigits<kForm>; ++d) {
      PlaceChunk<kRows>(&work.planes[d][0][at], cell);
      cell += std::size_t{kChunkQuads} * kRows;
    }
  }
}

/** One unit of a block of up to 16 rows, as tiles. */
template <Form kForm>
void QuantizeTileTask(
    const float* x,
    const float* weight,
    const float* inverse_rms,
    const Activations& to,
    int block,
    std::size_t u) {
  const ActivationLayout& layout = to.layout;
  constexpr std::size_t kTile = kTileRows * kMostUnit;
  auto* const tiles =
      reinterpret_cast<std::uint8_t*>(to.cells + layout.cell_offset(block)) +
      u * kDigits<kForm> * kTile;
  float* const scales =
      to.scales + layout.scale_offset(block) + u * 2 * kTileRows;
  const int rows = layout.rows_of_block(block);
  for (int r = 0; r < int{kTileRows}; ++r) {
    alignas(64) float values[kMostUnit];
    std::uint8_t* const plane = tiles + r * kMostUnit;
    const RowWork row{values, {plane, plane + kTile}};
    std::int32_t most = 0; // as in QuantizeTask
    if (r < rows) {
      most = LoadUnit<kMostUnit>(
          x + static_cast<std::size_t>(block + r) * layout.cols + u * kMostUnit,
          weight == nullptr ? nullptr : weight + u * kMostUnit,
          inverse_rms[r],
          values);
    }
    std::int32_t sum;
    QuantizeRow<kMostUnit, kForm>(most, row, scales[r], sum);
    scales[kTileRows + r] = scales[r] * static_cast<float>(sum);
  }
}

using Task = void (*)(
    const float*,
    const float*,
    const float*,
    const Activations&,
    int,
    std::size_t);

/** As kernel_of_rows counts. */
template <int kUnit, Form kForm>
constexpr Task kTasks[] = {
    QuantizeTask<kUnit, kForm, 1>,
    QuantizeTask<kUnit, kForm, 2>,
    QuantizeTask<kUnit, kForm, 3>,
    QuantizeTask<kUnit, kForm, 4>,
    QuantizeTask<kUnit, kForm, 8>};

template <int kUnit>
HWY_INLINE Task TaskOfUnit(const ActivationLayout& layout, int i) {
  if (layout.digits == 1) {
    return kTasks<kUnit, Form::OneDigit>[i];
  }
  if constexpr (HWY_TARGET == HWY_AVX2) { // panel_kernel-inl.h
    if (layout.form == CellForm::Words) {
      return kTasks<kUnit, Form::Words>[i];
    }
  }
  return kTasks<kUnit, Form::TwoDigits>[i];
}

HWY_INLINE Task TaskOf(const ActivationLayout& layout, int block) {
  if (layout.form == CellForm::Tiles) {
    return layout.digits == 2 ? QuantizeTileTask<Form::TwoDigits>
                              : QuantizeTileTask<Form::OneDigit>;
  }
  const int i = kernel_of_rows(layout.stored_rows_of_block(block));
  return layout.unit == kMostUnit ? TaskOfUnit<kMostUnit>(layout, i)
                                  : TaskOfUnit<kChunkInputs>(layout, i);
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
  float inverse_rms[kTileRows] = {};
  if (norm.weight == nullptr) {
    // Unit by unit: a rank quantizes about the columns that it computed, which
    // are in its own cache.
    const std::size_t blocks = layout.blocks();
    for (std::size_t task = first; task < last; ++task) {
      const int block = layout.block_start(static_cast<int>(task % blocks));
      TaskOf(layout, block)(x, nullptr, inverse_rms, to, block, task / blocks);
    }
    return;
  }
  for (std::size_t task = first; task < last; ++task) {
    const int block = layout.block_start(static_cast<int>(task / units));
    if (task == first || task % units == 0) {
      const int rows = layout.rows_of_block(block);
      for (int r = 0; r < rows; ++r) {
        inverse_rms[r] =
            InverseRms(F32(), x + (block + r) * cols, cols, norm.eps);
      }
    }
    TaskOf(layout, block)(x, norm.weight, inverse_rms, to, block, task % units);
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
