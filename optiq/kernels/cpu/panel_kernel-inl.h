// The product of one panel (or two) with one block of activation rows.
//
//   for group: for unit: acc = sum over quads of dot4(codes, cells)    int32
//                        y += float(acc) * (scale * xs); y += bias * xsum
//
// Lanes are output rows, so there is no horizontal sum, and each element sees
// the same float operations in the same order at every number of rows. The
// int32 sums are exact: how they are split over registers is free.

#if defined(OPTIQ_KERNELS_CPU_PANEL_KERNEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_PANEL_KERNEL_INL_H_
#undef OPTIQ_KERNELS_CPU_PANEL_KERNEL_INL_H_
#else
#define OPTIQ_KERNELS_CPU_PANEL_KERNEL_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "optiq/kernels/cpu/activations.h"
#include "optiq/kernels/cpu/panels.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/** One vector of a panel: all 16 rows with AVX-512, a part elsewhere. */
using PanelI32 = hn::CappedTag<std::int32_t, kPanelRows>;
using PanelF32 = hn::RebindToFloat<PanelI32>;
using PanelU32 = hn::RebindToUnsigned<PanelI32>;
using PanelU8 = hn::Repartition<std::uint8_t, PanelI32>;
using PanelI8 = hn::Repartition<std::int8_t, PanelI32>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(PanelI32()));
constexpr int kParts = kPanelRows / kLanes;

// A panel is read once, from memory: fetched this far ahead. Measured on a Zen
// 5 with 4 bits at one row, GB/s of one thread: none 22, 2 KB 37, 4 KB 44, 8 KB
// 48, 12 KB 53, 16 KB 49.
constexpr std::size_t kPrefetchBytes = 12288;

/** What one call covers: vectors of a panel times a block of rows. */
struct KernelArgs {
  const std::uint8_t* block; // first block, at the first vector's lanes
  const std::uint8_t* params; // its scales, likewise
  std::size_t block_bytes = 0;
  std::size_t blocks = 0;
  std::size_t code_stride = 0; // from one vector to the next
  std::size_t param_stride = 0;
  FloatType param_type = FloatType::BFloat16;
  int units = 1; // per block
  int chunks = 1; // per unit
  const std::int32_t* cells = nullptr;
  const float* scales = nullptr;
  float* y = nullptr;
  std::size_t y_stride = 0;
  std::size_t y_cols = 0; // that exist, from y on
  bool accumulate = false; // onto y: not the first tile of the inputs
};

template <int kShift>
HWY_INLINE hn::Vec<PanelU8> ShiftCells(hn::Vec<PanelU32> v) {
  if constexpr (kShift > 0) {
    return hn::BitCast(PanelU8(), hn::ShiftRight<kShift>(v));
  } else if constexpr (kShift < 0) {
    return hn::BitCast(PanelU8(), hn::ShiftLeft<-kShift>(v));
  } else {
    return hn::BitCast(PanelU8(), v);
  }
}

/** Quad `kQuad` of a chunk: 4 codes per lane. */
template <int kBits, int kQuad>
HWY_INLINE hn::Vec<PanelU8> UnpackQuad(const std::uint8_t* chunk) {
  constexpr int kLow = kBits == 3 ? 2 : kBits == 5 || kBits == 6 ? 4 : kBits;
  constexpr int kHigh = kBits - kLow;
  const auto load = [chunk](int vector) HWY_ATTR {
    return hn::BitCast(
        PanelU32(), hn::LoadU(PanelU8(), chunk + vector * kVectorBytes));
  };
  constexpr int kPerLow = 8 / kLow;
  const auto low = ShiftCells<kLow*(kQuad % kPerLow)>(load(kQuad / kPerLow));
  if constexpr (kBits == 8) {
    return low;
  } else if constexpr (kHigh == 0) {
    return hn::And(low, hn::Set(PanelU8(), (1 << kLow) - 1));
  } else {
    constexpr int kPerHigh = 8 / kHigh;
    const auto high = ShiftCells<kHigh*(kQuad % kPerHigh) - kLow>(
        load(kLow + kQuad / kPerHigh));
    return hn::OrAnd(
        hn::And(low, hn::Set(PanelU8(), (1 << kLow) - 1)),
        high,
        hn::Set(PanelU8(), ((1 << kHigh) - 1) << kLow));
  }
}

HWY_INLINE hn::Vec<PanelF32> LoadParams(
    FloatType type,
    const std::uint8_t* params) {
  const PanelF32 df;
  const hn::Rebind<hwy::bfloat16_t, PanelF32> db;
  const hn::Rebind<hwy::float16_t, PanelF32> dh;
  switch (type) {
    case FloatType::BFloat16:
      return hn::PromoteTo(
          df, hn::LoadU(db, reinterpret_cast<const hwy::bfloat16_t*>(params)));
    case FloatType::Float16:
      return hn::PromoteTo(
          df, hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(params)));
    case FloatType::Float32:
      break;
  }
  return hn::LoadU(df, reinterpret_cast<const float*>(params));
}

/** AVX2 has no dot of four bytes: one instruction makes pairs of products,
 * whose sums of 16 bits hold codes of up to 7 bits (2 * 127 * 128 < 2^15). */
constexpr bool kPairsOfBytes = HWY_TARGET == HWY_AVX2;

/** acc + the sums over four neighbours of code * digit, codes below 2^kBits.
 * Exact. */
template <int kBits>
HWY_INLINE hn::Vec<PanelI32> AddDot4(
    hn::Vec<PanelU8> codes,
    hn::Vec<PanelI8> digits,
    hn::Vec<PanelI32> acc) {
  const PanelI32 di;
  if constexpr (kPairsOfBytes && kBits < 8) {
    const hn::Repartition<std::int16_t, PanelI32> d16;
    const auto pairs = hn::SatWidenMulPairwiseAdd(d16, codes, digits);
    return hn::Add(acc, hn::WidenMulPairwiseAdd(di, pairs, hn::Set(d16, 1)));
  } else {
    return hn::SumOfMulQuadAccumulate(di, codes, digits, acc);
  }
}

/** Chains of dependent dots that keep the pipe busy at few rows. */
template <int kDigits, int kRows, int kVecs>
constexpr int kChains = std::max(1, 4 / (kDigits * kRows * kVecs));

template <int kBits, int kCode, int kDigits, int kRows, int kVecs, int kQuad>
HWY_INLINE void DotQuad(
    const std::uint8_t* chunk,
    std::size_t code_stride,
    const std::int32_t* cells,
    hn::Vec<PanelI32> (
        &acc)[kChains<kDigits, kRows, kVecs>][kDigits * kRows][kVecs]) {
  const PanelI32 di;
  constexpr int kChain = kQuad % kChains<kDigits, kRows, kVecs>;
  hn::Vec<PanelU8> codes[kVecs];
  HWY_UNROLL(4)
  for (int v = 0; v < kVecs; ++v) {
    codes[v] = UnpackQuad<kBits, kQuad>(chunk + v * code_stride);
  }
  HWY_UNROLL(16)
  for (int m = 0; m < kDigits * kRows; ++m) {
    const int digit = m / kRows;
    const std::int32_t cell =
        cells[(digit * kChunkQuads + kQuad) * kRows + m % kRows];
    const auto x = hn::BitCast(PanelI8(), hn::Set(di, cell));
    HWY_UNROLL(4)
    for (int v = 0; v < kVecs; ++v) {
      acc[kChain][m][v] = AddDot4<kCode>(codes[v], x, acc[kChain][m][v]);
    }
  }
}

/** The integer sums of one unit. */
template <int kBits, int kCode, int kDigits, int kRows, int kVecs, int kTile>
HWY_INLINE void DotUnit(
    const std::uint8_t* codes,
    const KernelArgs& args,
    const std::int32_t* cells,
    hn::Vec<PanelI32> (&sums)[kRows][kVecs]) {
  const PanelI32 di;
  constexpr int kC = kChains<kDigits, kRows, kVecs>;
  hn::Vec<PanelI32> acc[kC][kDigits * kRows][kVecs];
  HWY_UNROLL(4)
  for (int c = 0; c < kC; ++c) {
    HWY_UNROLL(16)
    for (int m = 0; m < kDigits * kRows; ++m) {
      HWY_UNROLL(4)
      for (int v = 0; v < kVecs; ++v) {
        acc[c][m][v] = hn::Zero(di);
      }
    }
  }
  const std::size_t stride = args.code_stride;
  HWY_UNROLL(2)
  for (int chunk = 0; chunk < (kTile > 0 ? kTile : args.chunks); ++chunk) {
    if constexpr (kVecs == 1) {
      HWY_UNROLL(8)
      for (int i = 0; i < kBits; ++i) {
        hwy::Prefetch(codes + kPrefetchBytes + i * kVectorBytes);
      }
    }
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 0>(codes, stride, cells, acc);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 1>(codes, stride, cells, acc);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 2>(codes, stride, cells, acc);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 3>(codes, stride, cells, acc);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 4>(codes, stride, cells, acc);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 5>(codes, stride, cells, acc);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 6>(codes, stride, cells, acc);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 7>(codes, stride, cells, acc);
    codes += kBits * kVectorBytes;
    cells += kChunkQuads * kDigits * kRows;
  }
  HWY_UNROLL(16)
  for (int m = 0; m < kRows; ++m) {
    HWY_UNROLL(4)
    for (int v = 0; v < kVecs; ++v) {
      HWY_UNROLL(4)
      for (int c = 1; c < kC; ++c) {
        HWY_UNROLL(2)
        for (int d = 0; d < kDigits; ++d) {
          acc[0][d * kRows + m][v] =
              hn::Add(acc[0][d * kRows + m][v], acc[c][d * kRows + m][v]);
        }
      }
      sums[m][v] = acc[0][m][v];
      if constexpr (kDigits == 2) {
        sums[m][v] =
            hn::Add(hn::ShiftLeft<8>(sums[m][v]), acc[0][kRows + m][v]);
      }
    }
  }
}

/** Lanes of vector v that belong to rows that exist. */
HWY_INLINE std::size_t LanesInside(const KernelArgs& args, int v) {
  const std::size_t before = static_cast<std::size_t>(v) * kLanes;
  return args.y_cols <= before
      ? 0
      : std::min<std::size_t>(kLanes, args.y_cols - before);
}

/** kTile: chunks per unit of an unpacked tile, in which every unit has its own
 * float32 parameters and a byte holds a code of kCode bits; 0: panels as they
 * are packed. */
template <
    int kBits,
    int kDigits,
    int kRows,
    int kVecs,
    int kTile = 0,
    int kCode = kBits>
void MultiplyBlock(const KernelArgs& args) {
  const PanelF32 df;
  const FloatType param_type = kTile > 0 ? FloatType::Float32 : args.param_type;
  hn::Vec<PanelF32> y[kRows][kVecs];
  HWY_UNROLL(8)
  for (int m = 0; m < kRows; ++m) {
    HWY_UNROLL(4)
    for (int v = 0; v < kVecs; ++v) {
      y[m][v] = hn::Zero(df);
      if (args.accumulate) {
        y[m][v] = hn::LoadN(
            df, args.y + m * args.y_stride + v * kLanes, LanesInside(args, v));
      }
    }
  }
  const std::int32_t* cells = args.cells;
  const float* scales = args.scales;
  const std::size_t bias_at = kPanelRows * size_of(param_type);
  for (std::size_t b = 0; b < args.blocks; ++b) {
    const std::uint8_t* codes = args.block + b * args.block_bytes;
    const std::uint8_t* params = args.params + b * args.block_bytes;
    for (int u = 0; u < (kTile > 0 ? 1 : args.units); ++u) {
      hn::Vec<PanelI32> sums[kRows][kVecs];
      DotUnit<kBits, kCode, kDigits, kRows, kVecs, kTile>(
          codes, args, cells, sums);
      codes += args.chunks * kBits * kVectorBytes;
      cells += args.chunks * kChunkQuads * kDigits * kRows;
      HWY_UNROLL(4)
      for (int v = 0; v < kVecs; ++v) {
        const std::uint8_t* at = params + v * args.param_stride;
        const auto scale = LoadParams(param_type, at);
        const auto bias = LoadParams(param_type, at + bias_at);
        HWY_UNROLL(8)
        for (int m = 0; m < kRows; ++m) {
          const auto step = hn::Mul(scale, hn::Set(df, scales[m]));
          y[m][v] = hn::MulAdd(hn::ConvertTo(df, sums[m][v]), step, y[m][v]);
          y[m][v] = hn::MulAdd(bias, hn::Set(df, scales[kRows + m]), y[m][v]);
        }
      }
      scales += 2 * kRows;
    }
  }
  HWY_UNROLL(8)
  for (int m = 0; m < kRows; ++m) {
    HWY_UNROLL(4)
    for (int v = 0; v < kVecs; ++v) {
      hn::StoreN(
          y[m][v],
          df,
          args.y + m * args.y_stride + v * kLanes,
          LanesInside(args, v));
    }
  }
}

using Kernel = void (*)(const KernelArgs&);

/** What all calls for a matrix share. */
HWY_INLINE KernelArgs MakeArgs(const PanelShape& shape) {
  KernelArgs args;
  args.param_type = shape.params;
  args.units = shape.group / unit_inputs(shape.group);
  args.chunks = unit_inputs(shape.group) / kChunkInputs;
  return args;
}

} // namespace HWY_NAMESPACE
} // namespace optiq::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
