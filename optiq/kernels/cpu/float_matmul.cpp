#include "optiq/kernels/cpu/float_matmul.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "optiq/base/thread_pool.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/float_matmul.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

#include "optiq/kernels/cpu/panel_kernel-inl.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

// A tile of C, 6 rows by a few vectors, stays in registers while it passes over
// a block of `inner`; the block's columns of B are copied (or dequantized)
// beside each other once for all rows of A.

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {
namespace {

constexpr std::size_t kLanesOfTile = hn::MaxLanes(F32());
constexpr std::size_t kTileRows = 6;
// 24 sums where there are 32 registers, 12 where there are 16.
constexpr std::size_t kTileVectors = kLanesOfTile == 16 ? 4 : 2;
constexpr std::size_t kTileCols = kTileVectors * kLanesOfTile;
constexpr std::size_t kInnerBlock = 96; // of 64 columns: 24 KB, within L1

/** A block of B: row k at k * kTileCols, filled up with zeros. */
struct PackedBlock {
  HWY_ALIGN float values[kInnerBlock * kTileCols];
};

template <class T>
void PackRows(
    const RightFactor& b,
    std::size_t k0,
    std::size_t n_inner,
    std::size_t n0,
    std::size_t n_cols,
    PackedBlock& to) {
  const F32 d;
  const hn::Rebind<T, F32> dt;
  for (std::size_t k = 0; k < n_inner; ++k) {
    const T* from = static_cast<const T*>(b.data) + (k0 + k) * b.stride + n0;
    float* row = to.values + k * kTileCols;
    for (std::size_t i = 0; i < kTileCols; i += kLanesOfTile) {
      const std::size_t n = i < n_cols ? std::min(kLanesOfTile, n_cols - i) : 0;
      if constexpr (sizeof(T) == sizeof(float)) {
        hn::Store(hn::LoadN(dt, from + i, n), d, row + i);
      } else {
        hn::Store(hn::PromoteTo(d, hn::LoadN(dt, from + i, n)), d, row + i);
      }
    }
  }
}

/** Four inputs of the rows of one vector, each row's beside each other. */
template <int kBits, int kQuad>
HWY_INLINE void UnpackFour(
    const std::uint8_t* chunk,
    hn::Vec<PanelF32> scale,
    hn::Vec<PanelF32> bias,
    float* rows) {
  const PanelF32 df;
  const PanelU32 du;
  const auto codes = hn::BitCast(du, UnpackQuad<kBits, kQuad>(chunk));
  const auto byte = hn::Set(du, 0xff);
  const auto value = [&](hn::Vec<PanelU32> code) HWY_ATTR {
    const auto x =
        hn::ConvertTo(df, hn::BitCast(PanelI32(), hn::And(code, byte)));
    return hn::Add(hn::Mul(x, scale), bias);
  };
  hn::StoreInterleaved4(
      value(codes),
      value(hn::ShiftRight<8>(codes)),
      value(hn::ShiftRight<16>(codes)),
      value(hn::ShiftRight<24>(codes)),
      df,
      rows);
}

/** Eight quads of a chunk: 32 inputs of one vector of rows. */
template <int kBits>
HWY_INLINE void UnpackChunk(
    const std::uint8_t* chunk,
    hn::Vec<PanelF32> scale,
    hn::Vec<PanelF32> bias,
    float (&rows)[kChunkQuads][4 * kPanelRows]) {
  UnpackFour<kBits, 0>(chunk, scale, bias, rows[0]);
  UnpackFour<kBits, 1>(chunk, scale, bias, rows[1]);
  UnpackFour<kBits, 2>(chunk, scale, bias, rows[2]);
  UnpackFour<kBits, 3>(chunk, scale, bias, rows[3]);
  UnpackFour<kBits, 4>(chunk, scale, bias, rows[4]);
  UnpackFour<kBits, 5>(chunk, scale, bias, rows[5]);
  UnpackFour<kBits, 6>(chunk, scale, bias, rows[6]);
  UnpackFour<kBits, 7>(chunk, scale, bias, rows[7]);
}

/** Of a panel's rows [0, n_rows), inputs [n0, n0 + n_cols), both multiples of
 * 4, behind `to`. */
template <int kBits>
void PackPanel(
    const PanelShape& shape,
    const std::byte* panel,
    std::size_t n_rows,
    std::size_t n0,
    std::size_t n_cols,
    float* to) {
  alignas(64) float unpacked[kChunkQuads][4 * kPanelRows];
  const std::size_t end = n0 + n_cols;
  for (std::size_t at = n0 / kChunkInputs * kChunkInputs; at < end;
       at += kChunkInputs) {
    const std::size_t group = shape.group;
    const auto* block = reinterpret_cast<const std::uint8_t*>(panel) +
        at / group * shape.block_bytes();
    const std::uint8_t* chunk =
        block + at % group / kChunkInputs * kBits * kVectorBytes;
    const std::uint8_t* params = block + shape.codes_bytes();
    const std::size_t size = size_of(shape.params);
    const std::size_t first = std::max(at, n0);
    const std::size_t last = std::min(at + kChunkInputs, end);
    for (std::size_t part = 0; part < kParts && part * kLanes < n_rows;
         ++part) {
      const std::size_t lane = part * kLanes;
      UnpackChunk<kBits>(
          chunk + 4 * lane,
          LoadParams(shape.params, params + lane * size),
          LoadParams(shape.params, params + (kPanelRows + lane) * size),
          unpacked);
      const std::size_t rows = std::min<std::size_t>(kLanes, n_rows - lane);
      for (std::size_t r = 0; r < rows; ++r) {
        for (std::size_t i = first; i < last; i += 4) {
          std::memcpy(
              to + (lane + r) * kTileCols + i - n0,
              unpacked[(i - at) / 4] + 4 * r,
              4 * sizeof(float));
        }
      }
    }
  }
}

template <int kBits>
void PackPanels(
    const PanelWeights& w,
    std::size_t k0,
    std::size_t n_inner,
    std::size_t n0,
    std::size_t n_cols,
    PackedBlock& to) {
  static_assert(kInnerBlock % kPanelRows == 0);
  if (n_cols < kTileCols) {
    std::fill_n(to.values, n_inner * kTileCols, 0.0f);
  }
  for (std::size_t k = 0; k < n_inner; k += kPanelRows) {
    PackPanel<kBits>(
        w.shape,
        w.data + (k0 + k) / kPanelRows * w.shape.panel_bytes(),
        std::min<std::size_t>(kPanelRows, n_inner - k),
        n0,
        n_cols,
        to.values + k * kTileCols);
  }
}

void PackQuantized(
    const PanelWeights& w,
    std::size_t k0,
    std::size_t n_inner,
    std::size_t n0,
    std::size_t n_cols,
    PackedBlock& to) {
  switch (w.shape.bits) {
    case 2:
      return PackPanels<2>(w, k0, n_inner, n0, n_cols, to);
    case 3:
      return PackPanels<3>(w, k0, n_inner, n0, n_cols, to);
    case 4:
      return PackPanels<4>(w, k0, n_inner, n0, n_cols, to);
    case 5:
      return PackPanels<5>(w, k0, n_inner, n0, n_cols, to);
    case 6:
      return PackPanels<6>(w, k0, n_inner, n0, n_cols, to);
    default:
      return PackPanels<8>(w, k0, n_inner, n0, n_cols, to);
  }
}

void Pack(
    const RightFactor& b,
    std::size_t k0,
    std::size_t n_inner,
    std::size_t n0,
    std::size_t n_cols,
    PackedBlock& to) {
  if (b.panels != nullptr) {
    return PackQuantized(*b.panels, k0, n_inner, n0, n_cols, to);
  }
  switch (b.type) {
    case FloatType::Float32:
      return PackRows<float>(b, k0, n_inner, n0, n_cols, to);
    case FloatType::BFloat16:
      return PackRows<hwy::bfloat16_t>(b, k0, n_inner, n0, n_cols, to);
    case FloatType::Float16:
      return PackRows<hwy::float16_t>(b, k0, n_inner, n0, n_cols, to);
  }
}

/** Some rows of A times a packed block, onto some columns of C. */
struct TileTask {
  LeftFactor a;
  const float* b;
  std::size_t inner;
  float* c;
  std::size_t c_stride;
  std::size_t last_lanes; // of the last vector, that exist
  bool accumulate;
};

template <std::size_t kRows, std::size_t kVectors>
HWY_NOINLINE void MultiplyTileOf(const TileTask& task) {
  const F32 d;
  VF32 sums[kRows][kVectors];
  const auto lanes_of = [&](std::size_t v) HWY_ATTR {
    return v + 1 == kVectors ? task.last_lanes : kLanesOfTile;
  };
  HWY_UNROLL(6)
  for (std::size_t m = 0; m < kRows; ++m) {
    HWY_UNROLL(4)
    for (std::size_t v = 0; v < kVectors; ++v) {
      sums[m][v] = task.accumulate
          ? hn::LoadN(
                d, task.c + m * task.c_stride + v * kLanesOfTile, lanes_of(v))
          : hn::Zero(d);
    }
  }
  const float* a = task.a.data;
  const float* b = task.b;
  for (std::size_t k = 0; k < task.inner; ++k) {
    VF32 right[kVectors];
    HWY_UNROLL(4)
    for (std::size_t v = 0; v < kVectors; ++v) {
      right[v] = hn::Load(d, b + v * kLanesOfTile);
    }
    HWY_UNROLL(6)
    for (std::size_t m = 0; m < kRows; ++m) {
      const VF32 left = hn::Set(d, a[m * task.a.row_stride]);
      HWY_UNROLL(4)
      for (std::size_t v = 0; v < kVectors; ++v) {
        sums[m][v] = hn::MulAdd(left, right[v], sums[m][v]);
      }
    }
    a += task.a.column_stride;
    b += kTileCols;
  }
  HWY_UNROLL(6)
  for (std::size_t m = 0; m < kRows; ++m) {
    HWY_UNROLL(4)
    for (std::size_t v = 0; v < kVectors; ++v) {
      hn::StoreN(
          sums[m][v],
          d,
          task.c + m * task.c_stride + v * kLanesOfTile,
          lanes_of(v));
    }
  }
}

template <std::size_t kVectors>
void MultiplyTileRows(const TileTask& task, std::size_t rows) {
  switch (rows) {
    case 1:
      return MultiplyTileOf<1, kVectors>(task);
    case 2:
      return MultiplyTileOf<2, kVectors>(task);
    case 3:
      return MultiplyTileOf<3, kVectors>(task);
    case 4:
      return MultiplyTileOf<4, kVectors>(task);
    case 5:
      return MultiplyTileOf<5, kVectors>(task);
    default:
      return MultiplyTileOf<6, kVectors>(task);
  }
}

void MultiplyTileOfSize(
    const TileTask& task,
    std::size_t rows,
    std::size_t vectors) {
  if constexpr (kTileVectors == 4) {
    if (vectors == 4) {
      return MultiplyTileRows<4>(task, rows);
    }
    if (vectors == 3) {
      return MultiplyTileRows<3>(task, rows);
    }
  }
  return vectors == 2 ? MultiplyTileRows<2>(task, rows)
                      : MultiplyTileRows<1>(task, rows);
}

void MultiplyFloats(const FloatProduct& p) {
  PackedBlock block;
  if (p.inner == 0 && !p.accumulate) {
    for (std::size_t m = 0; m < p.rows; ++m) {
      std::fill_n(p.c + m * p.c_stride, p.cols, 0.0f);
    }
  }
  for (std::size_t n = 0; n < p.cols; n += kTileCols) {
    const std::size_t cols = std::min(kTileCols, p.cols - n);
    const std::size_t vectors = (cols + kLanesOfTile - 1) / kLanesOfTile;
    for (std::size_t k = 0; k < p.inner; k += kInnerBlock) {
      const std::size_t inner = std::min(kInnerBlock, p.inner - k);
      Pack(p.b, k, inner, p.b.first_column + n, cols, block);
      for (std::size_t m = 0; m < p.rows; m += kTileRows) {
        TileTask task{
            p.a,
            block.values,
            inner,
            p.c + m * p.c_stride + n,
            p.c_stride,
            cols - (vectors - 1) * kLanesOfTile,
            p.accumulate || k > 0};
        task.a.data += m * p.a.row_stride + k * p.a.column_stride;
        MultiplyTileOfSize(task, std::min(kTileRows, p.rows - m), vectors);
      }
    }
  }
}

} // namespace
} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {
namespace {

HWY_EXPORT(MultiplyFloats);

// Pieces of C: columns by whole vectors of any target, rows by whole tiles.
constexpr std::size_t kColumnPiece = 16;
constexpr std::size_t kRowPiece = 6;
// Smaller ones would pack B too often, or leave tiles half empty.
constexpr std::size_t kLeastColumns = 256;
constexpr std::size_t kLeastRows = 96;
// Multiply-adds below which waking a thread does not pay.
constexpr std::size_t kMinWork = 1 << 17;

/** Columns [first, last) of B and C. */
FloatProduct
columns_of(const FloatProduct& p, std::size_t first, std::size_t last) {
  FloatProduct part = p;
  part.b.first_column += first;
  part.c += first;
  part.cols = last - first;
  return part;
}

FloatProduct
rows_of(const FloatProduct& p, std::size_t first, std::size_t last) {
  FloatProduct part = p;
  part.a.data += first * p.a.row_stride;
  part.c += first * p.c_stride;
  part.rows = last - first;
  return part;
}

/** Which way a product is cut, as parallel_for asks for it. */
struct Cut {
  std::size_t n;
  std::size_t grain;
  std::size_t least;
  FloatProduct (*part)(const FloatProduct&, std::size_t, std::size_t);
};

} // namespace

void multiply_floats(const FloatProduct& product) {
  HWY_DYNAMIC_DISPATCH(MultiplyFloats)(product);
}

void multiply_floats_in_parallel(const FloatProduct& p) {
  if (p.rows * p.cols * std::max<std::size_t>(1, p.inner) < kMinWork) {
    multiply_floats(p);
    return;
  }
  const Cut cut = p.cols >= p.rows
      ? Cut{p.cols, kColumnPiece, kLeastColumns, columns_of}
      : Cut{p.rows, kRowPiece, kLeastRows, rows_of};
  parallel_for(
      cut.n,
      cut.grain,
      [&](std::size_t first, std::size_t last) {
        multiply_floats(cut.part(p, first, last));
      },
      cut.least);
}

} // namespace optiq::kernels::cpu
#endif
