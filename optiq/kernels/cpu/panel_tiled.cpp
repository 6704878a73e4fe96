#include <algorithm>

#include "optiq/kernels/cpu/amx_panels.h"
#include "optiq/kernels/cpu/panel_matmul_impl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/panel_tiled.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

#include "optiq/kernels/cpu/panel_kernel-inl.h"
#include "optiq/kernels/cpu/prefetch.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {

using RowKernels = Kernel[kFewBlockRows + 1];

/** Kernels on unpacked tiles, two vectors at a time, as kernel_of_rows counts.
 */
template <int kChunks, int kCodeBits, int kDigits>
constexpr RowKernels kTiled = {
    MultiplyBlock<8, kDigits, 1, 2, kChunks, kCodeBits>,
    MultiplyBlock<8, kDigits, 2, 2, kChunks, kCodeBits>,
    MultiplyBlock<8, kDigits, 3, 2, kChunks, kCodeBits>,
    MultiplyBlock<8, kDigits, 4, 2, kChunks, kCodeBits>,
    kDigits == 1 ? MultiplyBlock<8, 1, 8, 2, kChunks, kCodeBits> : nullptr};

template <int kChunks>
const RowKernels& TiledKernelsOf(int bits, int digits) {
  if (digits == 2) {
    return kTiled<kChunks, 8, 2>;
  }
  if constexpr (kPairsOfBytes) { // elsewhere the dots are the same
    if (bits <= 6) {
      return bits <= 4 ? kTiled<kChunks, 4, 1> : kTiled<kChunks, 6, 1>;
    }
  }
  return kTiled<kChunks, 8, 1>;
}

/** Where codes have so many bits. */
const RowKernels& TiledKernels(int bits, const ActivationLayout& layout) {
  return layout.unit == kChunkInputs ? TiledKernelsOf<1>(bits, layout.digits)
                                     : TiledKernelsOf<2>(bits, layout.digits);
}

template <int kBits>
void UnpackChunk(const std::uint8_t* chunk, std::uint8_t* out) {
  const PanelU8 d8;
  for (std::size_t at = 0; at < kVectorBytes; at += hn::Lanes(d8)) {
    const std::uint8_t* in = chunk + at;
    std::uint8_t* to = out + at;
    hn::StoreU(UnpackQuad<kBits, 0>(in), d8, to);
    hn::StoreU(UnpackQuad<kBits, 1>(in), d8, to + 1 * kVectorBytes);
    hn::StoreU(UnpackQuad<kBits, 2>(in), d8, to + 2 * kVectorBytes);
    hn::StoreU(UnpackQuad<kBits, 3>(in), d8, to + 3 * kVectorBytes);
    hn::StoreU(UnpackQuad<kBits, 4>(in), d8, to + 4 * kVectorBytes);
    hn::StoreU(UnpackQuad<kBits, 5>(in), d8, to + 5 * kVectorBytes);
    hn::StoreU(UnpackQuad<kBits, 6>(in), d8, to + 6 * kVectorBytes);
    hn::StoreU(UnpackQuad<kBits, 7>(in), d8, to + 7 * kVectorBytes);
  }
}

using ChunkUnpacker = void (*)(const std::uint8_t*, std::uint8_t*);

ChunkUnpacker UnpackerOf(int bits) {
  static constexpr ChunkUnpacker kWidths[] = {
      UnpackChunk<2>,
      UnpackChunk<3>,
      UnpackChunk<4>,
      UnpackChunk<5>,
      UnpackChunk<6>,
      UnpackChunk<8>};
  return kWidths[bits == 8 ? 5 : bits - 2];
}

// Inputs of a tile: two unpacked panels and a block of rows fit a 48 KB L1.
constexpr int kTileInputs = 1024;
constexpr std::size_t kTileBytes = // codes, then at most 32 groups' params
    kPanelRows * (kTileInputs + 2 * sizeof(float) * kTileInputs / 32);

/** Scales and biases of a block as float32. */
void WidenParams(
    FloatType type,
    const std::uint8_t* params,
    std::uint8_t* out) {
  const PanelF32 df;
  for (int i = 0; i < 2 * kPanelRows; i += kLanes) {
    hn::StoreU(
        LoadParams(type, params + i * size_of(type)),
        df,
        reinterpret_cast<float*>(out) + i);
  }
}

/** Unpacks blocks of one panel into units of 8-bit codes. */
void UnpackTile(
    const PanelShape& shape,
    const std::uint8_t* block,
    std::size_t blocks,
    std::uint8_t* tile) {
  const auto unpack = UnpackerOf(shape.bits);
  const int unit_chunks = unit_inputs(shape.group) / kChunkInputs;
  for (std::size_t b = 0; b < blocks; ++b, block += shape.block_bytes()) {
    const std::uint8_t* codes = block;
    for (int at = 0; at < shape.group; at += unit_chunks * kChunkInputs) {
      for (int c = 0; c < unit_chunks; ++c) {
        unpack(codes, tile);
        codes += shape.bits * kVectorBytes;
        tile += 8 * kVectorBytes;
      }
      WidenParams(shape.params, block + shape.codes_bytes(), tile);
      tile += 2 * sizeof(float) * kPanelRows;
    }
  }
}

/** The packed blocks of a tile: of two panels, one at the end. */
struct Packed {
  const std::uint8_t* panel[2] = {}; // null: no such panel
  std::size_t blocks = 0; // of each
  std::size_t bytes = 0;
};

/** Blocks from `block` on of panels `panel` and `panel` + 1. */
Packed PackedAt(
    const PanelWeights& weights,
    std::size_t panel,
    std::size_t end,
    std::size_t block) {
  const PanelShape& shape = weights.shape;
  Packed packed;
  packed.blocks =
      std::min<std::size_t>(kTileInputs / shape.group, shape.blocks() - block);
  packed.bytes = packed.blocks * shape.block_bytes();
  for (std::size_t i = 0; i < 2 && panel + i < end; ++i) {
    packed.panel[i] = reinterpret_cast<const std::uint8_t*>(weights.data) +
        (panel + i) * shape.panel_bytes() + block * shape.block_bytes();
  }
  return packed;
}

/** Share `part` of `parts` of what is unpacked next: memory is read while the
 * products run. */
HWY_INLINE void Fetch(const Packed& next, std::size_t part, std::size_t parts) {
  constexpr std::size_t kLine = 64;
  const std::size_t lines = (next.bytes + kLine - 1) / kLine;
  for (const std::uint8_t* panel : next.panel) {
    for (std::size_t i = lines * part / parts;
         panel != nullptr && i < lines * (part + 1) / parts;
         ++i) {
      prefetch_far(panel + i * kLine);
    }
  }
}

/** All rows times one tile of one or two panels; fetches `next`. */
void MultiplyTile(
    const Activations& x,
    int bits,
    std::size_t first_block,
    const Packed& next,
    KernelArgs args) {
  const ActivationLayout& layout = x.layout;
  const std::size_t first_unit = first_block * args.units;
  const auto& kernels = TiledKernels(bits, layout);
  int block = 0;
  for (int row = 0; row < layout.rows; ++block) {
    const int rows = layout.rows_of_block(row);
    KernelArgs call = args;
    call.cells = x.cells + layout.cell_offset(row) +
        first_unit * layout.unit / 4 * layout.digits * rows;
    call.scales = x.scales + layout.scale_offset(row) + first_unit * 2 * rows;
    call.y = args.y + row * args.y_stride;
    call.y_rows = rows;
    Fetch(next, block, layout.blocks());
    kernels[kernel_of_rows(rows)](call);
    row += rows;
  }
}

/** Unpacked blocks of one or two panels. */
struct Unpacked {
  alignas(64) std::uint8_t tiles[2 * kTileBytes];
  std::size_t panels = 0;
  std::size_t first_block = 0;
  std::size_t units = 0;
};

/** All rows times them, in vectors. Vectors of 16 lanes: the two panels.
 * Smaller: parts of one, in turn. */
void MultiplyVectors(
    const Activations& x,
    const PanelShape& shape,
    const Unpacked& from,
    const Packed& next,
    const Output& to,
    std::size_t columns) {
  KernelArgs args = MakeArgs(shape);
  const std::size_t unit_bytes = std::size_t{16} * unit_inputs(shape.group);
  args.block_bytes = unit_bytes + 2 * sizeof(float) * kPanelRows;
  args.blocks = from.units;
  args.y_stride = to.stride;
  args.accumulate = from.first_block > 0;
  for (std::size_t v = 0; v < from.panels * kParts; v += 2) {
    const std::size_t panel_of = v / kParts;
    const std::size_t part = v % kParts;
    const std::uint8_t* tile = from.tiles + panel_of * kTileBytes;
    const bool next_panel = kParts == 1 && from.panels == 2;
    const std::size_t col = panel_of * kPanelRows + part * kLanes;
    const std::size_t lanes = (kParts == 1 ? from.panels : 2) * kLanes;
    args.block = tile + part * kLanes * 4;
    args.params = tile + unit_bytes + part * kLanes * sizeof(float);
    // A lone panel is computed twice and stored once.
    args.code_stride = next_panel ? kTileBytes
        : kParts == 1             ? 0
                                  : std::size_t{4} * kLanes;
    args.param_stride = next_panel ? kTileBytes
        : kParts == 1              ? 0
                                   : kLanes * sizeof(float);
    args.y = to.y + col;
    args.y_cols = col < columns ? std::min(lanes, columns - col) : 0;
    MultiplyTile(x, shape.bits, from.first_block, next, args);
  }
}

/** Many rows: unpacks a tile of two panels, then runs it over all rows. */
void MultiplyTiled(
    const Activations& x,
    const PanelWeights& weights,
    std::size_t first,
    std::size_t last,
    const Output& to) {
  Unpacked unpacked;
  const PanelShape& shape = weights.shape;
  const std::size_t tile_blocks = kTileInputs / shape.group;
  const std::size_t units = shape.group / unit_inputs(shape.group);
  for (std::size_t panel = first; panel < last; panel += 2) {
    unpacked.panels = std::min<std::size_t>(2, last - panel);
    const Output here{to.y + (panel - first) * kPanelRows, to.stride};
    const std::size_t columns = shape.rows - panel * kPanelRows;
    for (std::size_t b = 0; b < shape.blocks(); b += tile_blocks) {
      const Packed packed = PackedAt(weights, panel, last, b);
      // Beyond `last` is often the same rank's next call.
      const Packed next = b + tile_blocks < shape.blocks()
          ? PackedAt(weights, panel, last, b + tile_blocks)
          : PackedAt(weights, panel + 2, shape.panels(), 0);
      unpacked.first_block = b;
      unpacked.units = packed.blocks * units;
      for (std::size_t i = 0; i < unpacked.panels; ++i) {
        UnpackTile(
            shape,
            packed.panel[i],
            packed.blocks,
            unpacked.tiles + i * kTileBytes);
      }
      if (x.layout.form != CellForm::Tiles) {
        MultiplyVectors(x, shape, unpacked, next, here, columns);
        continue;
      }
      multiply_tiles(
          {.x = &x,
           .panels =
               {unpacked.tiles,
                unpacked.panels == 2 ? unpacked.tiles + kTileBytes : nullptr},
           .first_unit = b * units,
           .units = unpacked.units,
           .to = here,
           .columns = columns,
           .accumulate = b > 0,
           .next = {next.panel[0], next.panel[1]},
           .next_bytes = next.bytes});
    }
  }
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace optiq::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(MultiplyTiled);

void multiply_tiled(
    const Activations& x,
    const PanelWeights& weights,
    std::size_t first,
    std::size_t last,
    const Output& to) {
  HWY_DYNAMIC_DISPATCH(MultiplyTiled)(x, weights, first, last, to);
}

} // namespace optiq::kernels::cpu
#endif
