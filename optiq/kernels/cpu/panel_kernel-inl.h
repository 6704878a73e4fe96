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
  int y_rows = 0;
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
  constexpr int kLow = low_plane_bits(kBits);
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
using PanelI16 = hn::Repartition<std::int16_t, PanelI32>;

/** Sums over neighbours. */
HWY_INLINE hn::Vec<PanelI32> WidenPairs(hn::Vec<PanelI16> pairs) {
  return hn::WidenMulPairwiseAdd(
      PanelI32(), pairs, hn::Set(PanelI16(), std::int16_t{1}));
}

/** acc + the sums over four neighbours of code * digit, codes below 2^kBits.
 * Exact. */
template <int kBits>
HWY_INLINE hn::Vec<PanelI32> AddDot4(
    hn::Vec<PanelU8> codes,
    hn::Vec<PanelI8> digits,
    hn::Vec<PanelI32> acc) {
  if constexpr (kPairsOfBytes && kBits < 8) {
    const auto pairs = hn::SatWidenMulPairwiseAdd(PanelI16(), codes, digits);
    return hn::Add(acc, WidenPairs(pairs));
  } else {
    return hn::SumOfMulQuadAccumulate(PanelI32(), codes, digits, acc);
  }
}

/** Nor does AVX2 have a dot of bytes that holds codes of 8 bits: they and both
 * digits of an activation are multiplied as words. So are all codes of 8 rows,
 * whose sums of pairs would take more registers than there are. */
template <int kCode, int kDigits, int kRows>
constexpr bool kHasWords = (kPairsOfBytes && kDigits == 2) &&
    (kCode == 8 || kRows == kMostBlockRows);

/** Digits whose sums are kept apart. */
template <int kCode, int kDigits, int kRows>
constexpr int kPlacesOf = kHasWords<kCode, kDigits, kRows> ? 1 : kDigits;

/** Quads whose pairs of products, added up, stay within 16 bits. */
template <int kCode>
constexpr int kQuadsOfPairs =
    std::min(kChunkQuads, 32767 / (2 * 128 * ((1 << kCode) - 1)));

/** Chains of dependent dots that keep the pipe busy at few rows. Pairs need
 * none: adding them takes a cycle. */
template <int kCode, int kDigits, int kRows, int kVecs>
constexpr int kChains = (kPairsOfBytes && kCode < 8)
    ? 1
    : std::max(1, 4 / (kDigits * kRows * kVecs));

/** Sums of one unit, by digit and row. */
template <int kCode, int kDigits, int kRows, int kVecs>
struct UnitSums {
  static constexpr int kC = kChains<kCode, kDigits, kRows, kVecs>;
  hn::Vec<PanelI32> acc[kC][kPlacesOf<kCode, kDigits, kRows> * kRows][kVecs];
  hn::Vec<PanelI16> pairs[kDigits * kRows][kVecs]; // not yet in acc

  template <int kQuad>
  HWY_INLINE void
  Add(hn::Vec<PanelU8> codes, hn::Vec<PanelI8> digits, int m, int v) {
    if constexpr (kPairsOfBytes && kCode < 8) {
      constexpr int kQuads = kQuadsOfPairs<kCode>;
      const auto made = hn::SatWidenMulPairwiseAdd(PanelI16(), codes, digits);
      pairs[m][v] = kQuad % kQuads == 0 ? made : hn::Add(pairs[m][v], made);
      // Else GCC makes all products of a unit, on the stack, before it adds.
      asm("" : "+x"(pairs[m][v].raw));
      if constexpr ((kQuad + 1) % kQuads == 0 || kQuad + 1 == kChunkQuads) {
        acc[0][m][v] = hn::Add(acc[0][m][v], WidenPairs(pairs[m][v]));
      }
    } else {
      acc[kQuad % kC][m][v] =
          AddDot4<kCode>(codes, digits, acc[kQuad % kC][m][v]);
    }
  }
};

/** Two digits at once: words of codes 0 and 2, and of 1 and 3. */
template <int kQuad, int kCode, int kDigits, int kRows, int kVecs>
HWY_INLINE void DotWords(
    const hn::Vec<PanelU8> (&codes)[kVecs],
    const std::int32_t* cells,
    UnitSums<kCode, kDigits, kRows, kVecs>& sums) {
  const PanelI32 di;
  const hn::RebindToUnsigned<PanelI16> du16;
  auto& acc = sums.acc[kQuad % sums.kC];
  HWY_UNROLL(2)
  for (int pair = 0; pair < 2; ++pair) {
    hn::Vec<PanelI16> words[kVecs];
    HWY_UNROLL(4)
    for (int v = 0; v < kVecs; ++v) {
      const auto both = hn::BitCast(du16, codes[v]);
      words[v] = hn::BitCast(
          PanelI16(),
          pair == 0 ? hn::And(both, hn::Set(du16, 0xff))
                    : hn::ShiftRight<8>(both));
    }
    HWY_UNROLL(8)
    for (int m = 0; m < kRows; ++m) {
      const auto x = hn::BitCast(
          PanelI16(), hn::Set(di, cells[(2 * kQuad + pair) * kRows + m]));
      HWY_UNROLL(4)
      for (int v = 0; v < kVecs; ++v) {
        acc[m][v] =
            hn::Add(acc[m][v], hn::WidenMulPairwiseAdd(di, words[v], x));
        asm("" : "+x"(acc[m][v].raw)); // as in UnitSums::Add
      }
    }
  }
}

template <int kBits, int kCode, int kDigits, int kRows, int kVecs, int kQuad>
HWY_INLINE void DotQuad(
    const std::uint8_t* chunk,
    std::size_t code_stride,
    const std::int32_t* cells,
    UnitSums<kCode, kDigits, kRows, kVecs>& sums) {
  hn::Vec<PanelU8> codes[kVecs];
  HWY_UNROLL(4)
  for (int v = 0; v < kVecs; ++v) {
    codes[v] = UnpackQuad<kBits, kQuad>(chunk + v * code_stride);
  }
  if constexpr (kHasWords<kCode, kDigits, kRows>) {
    DotWords<kQuad>(codes, cells, sums);
  } else {
    HWY_UNROLL(16)
    for (int m = 0; m < kDigits * kRows; ++m) {
      const int digit = m / kRows;
      const std::int32_t cell =
          cells[(digit * kChunkQuads + kQuad) * kRows + m % kRows];
      const auto x = hn::BitCast(PanelI8(), hn::Set(PanelI32(), cell));
      HWY_UNROLL(4)
      for (int v = 0; v < kVecs; ++v) {
        sums.template Add<kQuad>(codes[v], x, m, v);
      }
    }
  }
}

/** The integer sums of one unit, of all vectors side by side. */
template <int kBits, int kCode, int kDigits, int kRows, int kVecs, int kTile>
HWY_INLINE void DotVectors(
    const std::uint8_t* codes,
    const KernelArgs& args,
    const std::int32_t* cells,
    hn::Vec<PanelI32> (&sums)[kRows][kVecs]) {
  const PanelI32 di;
  constexpr int kC = kChains<kCode, kDigits, kRows, kVecs>;
  constexpr int kPlaces = kPlacesOf<kCode, kDigits, kRows>;
  UnitSums<kCode, kDigits, kRows, kVecs> unit;
  auto& acc = unit.acc;
  HWY_UNROLL(4)
  for (int c = 0; c < kC; ++c) {
    HWY_UNROLL(16)
    for (int m = 0; m < kPlaces * kRows; ++m) {
      HWY_UNROLL(4)
      for (int v = 0; v < kVecs; ++v) {
        acc[c][m][v] = hn::Zero(di);
      }
    }
  }
  const std::size_t stride = args.code_stride;
  HWY_UNROLL(2)
  for (int chunk = 0; chunk < (kTile > 0 ? kTile : args.chunks); ++chunk) {
    if constexpr (kTile == 0) {
      HWY_UNROLL(8)
      for (int i = 0; i < kBits; ++i) {
        hwy::Prefetch(codes + kPrefetchBytes + i * kVectorBytes);
      }
    }
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 0>(codes, stride, cells, unit);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 1>(codes, stride, cells, unit);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 2>(codes, stride, cells, unit);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 3>(codes, stride, cells, unit);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 4>(codes, stride, cells, unit);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 5>(codes, stride, cells, unit);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 6>(codes, stride, cells, unit);
    DotQuad<kBits, kCode, kDigits, kRows, kVecs, 7>(codes, stride, cells, unit);
    codes += kBits * kVectorBytes;
    cells += std::size_t{kChunkQuads} * kDigits * kRows;
  }
  HWY_UNROLL(16)
  for (int m = 0; m < kRows; ++m) {
    HWY_UNROLL(4)
    for (int v = 0; v < kVecs; ++v) {
      HWY_UNROLL(4)
      for (int c = 1; c < kC; ++c) {
        HWY_UNROLL(2)
        for (int d = 0; d < kPlaces; ++d) {
          acc[0][d * kRows + m][v] =
              hn::Add(acc[0][d * kRows + m][v], acc[c][d * kRows + m][v]);
        }
      }
      sums[m][v] = acc[0][m][v];
      if constexpr (kPlaces == 2) {
        sums[m][v] =
            hn::Add(hn::ShiftLeft<8>(sums[m][v]), acc[0][kRows + m][v]);
      }
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
  if constexpr (kPairsOfBytes && kCode < 8 && kVecs > 1) {
    // There are registers for the pairs of one vector.
    HWY_UNROLL(4)
    for (int v = 0; v < kVecs; ++v) {
      hn::Vec<PanelI32> of_one[kRows][1];
      const std::int32_t* again = cells;
      asm volatile("" : "+r"(again)); // else GCC keeps all digits, on the stack
      DotVectors<kBits, kCode, kDigits, kRows, 1, kTile>(
          codes + v * args.code_stride, args, again, of_one);
      HWY_UNROLL(8)
      for (int m = 0; m < kRows; ++m) {
        sums[m][v] = of_one[m][0];
      }
    }
  } else {
    DotVectors<kBits, kCode, kDigits, kRows, kVecs, kTile>(
        codes, args, cells, sums);
  }
}

/** Lanes of vector v that belong to rows that exist. */
HWY_INLINE std::size_t LanesInside(const KernelArgs& args, std::size_t v) {
  const std::size_t before = v * kLanes;
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
    for (std::size_t v = 0; v < kVecs; ++v) {
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
      codes += args.chunks * kVectorBytes * kBits;
      cells += std::size_t{kChunkQuads} * kDigits * kRows * args.chunks;
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
      scales += std::size_t{2} * kRows;
    }
  }
  HWY_UNROLL(8)
  for (int m = 0; m < kRows; ++m) {
    if (m >= args.y_rows) {
      continue;
    }
    HWY_UNROLL(4)
    for (std::size_t v = 0; v < kVecs; ++v) {
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
