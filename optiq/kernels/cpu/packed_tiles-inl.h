// The codes of a block of packed keys or values as a tile of bytes that stays
// in the first-level cache; included once per SIMD target:
//
//   tile    [quads of 4 inputs][panels of 16 lanes][16 lanes][4 inputs]
//
// Keys: inputs are channels, lanes tokens. Values: inputs are tokens, lanes
// channels. Turbo's codes pass through tables of centroids, as bytes: the first
// plane of a table, or one tile for each of its planes.
#if defined(OPTIQ_KERNELS_CPU_PACKED_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_PACKED_TILES_INL_H_
#undef OPTIQ_KERNELS_CPU_PACKED_TILES_INL_H_
#else
#define OPTIQ_KERNELS_CPU_PACKED_TILES_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"

#include "optiq/kernels/cpu/attention.h"
#include "optiq/kernels/cpu/panel_kernel-inl.h"
#include "optiq/kernels/cpu/prefetch.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

constexpr std::size_t kTokenQuads = kBlockTokens / 4;

/** Where the vector of a quad and a panel lies. */
struct ByteTile {
  const std::uint8_t* data = nullptr;
  std::size_t quad_stride = 0;
  std::size_t panel_stride = 0;
  std::size_t plane_stride = 0;
};

/** A plane of turbo's bytes, of up to 32 codes. */
struct ByteTable {
  hn::Vec<PanelU8> low;
  hn::Vec<PanelU8> high;

  explicit ByteTable(const CodeTable& table, int plane = 0)
      : low(hn::LoadDup128(PanelU8(), table.planes[plane].data())),
        high(hn::LoadDup128(PanelU8(), table.planes[plane].data() + 16)) {}

  template <int kBits>
  HWY_INLINE hn::Vec<PanelU8> Look(hn::Vec<PanelU8> codes) const {
    const PanelU8 d;
    if constexpr (kBits <= 4) {
      return hn::TableLookupBytes(low, codes);
    } else {
      const auto fifteen = hn::Set(d, std::uint8_t{15});
      const auto index = hn::And(codes, fifteen);
      return hn::IfThenElse(
          hn::Gt(codes, fifteen),
          hn::TableLookupBytes(high, index),
          hn::TableLookupBytes(low, index));
    }
  }
};

template <int kBits, int kQuad>
HWY_INLINE void UnpackTo(
    const std::uint8_t* chunk,
    const ByteTable* table,
    std::uint8_t* to,
    std::size_t quad_stride) {
  auto codes = UnpackQuad<kBits, kQuad>(chunk);
  if constexpr (kBits <= 5) {
    if (table != nullptr) {
      codes = table->Look<kBits>(codes);
    }
  }
  hn::StoreU(codes, PanelU8(), to + kQuad * quad_stride);
}

/** The 8 quads of a chunk; fetches as many bytes from `next` on. */
template <int kBits>
HWY_INLINE void UnpackChunk(
    const std::uint8_t* chunk,
    const ByteTable* table,
    std::uint8_t* to,
    std::size_t quad_stride,
    const std::byte* next) {
  if (next != nullptr) {
    for (int i = 0; i < kBits; ++i) {
      prefetch_far(next + i * kVectorBytes);
    }
  }
  for (std::size_t part = 0; part < kParts; ++part) {
    const std::uint8_t* from = chunk + part * kLanes * 4;
    std::uint8_t* lanes = to + part * kLanes * 4;
    UnpackTo<kBits, 0>(from, table, lanes, quad_stride);
    UnpackTo<kBits, 1>(from, table, lanes, quad_stride);
    UnpackTo<kBits, 2>(from, table, lanes, quad_stride);
    UnpackTo<kBits, 3>(from, table, lanes, quad_stride);
    UnpackTo<kBits, 4>(from, table, lanes, quad_stride);
    UnpackTo<kBits, 5>(from, table, lanes, quad_stride);
    UnpackTo<kBits, 6>(from, table, lanes, quad_stride);
    UnpackTo<kBits, 7>(from, table, lanes, quad_stride);
  }
}

/** Codes of 4 bits as they lie: a vector holds two quads. */
template <bool kLook>
struct NibbleTile {
  static constexpr bool kLooks = kLook;
  const std::uint8_t* data = nullptr;
  std::size_t panel_stride = 0;
  const std::byte* next = nullptr; // as many bytes to fetch
  ByteTable table; // of turbo, when kLook
};

/** How the chunks of a side, or of a part of equal width, become a tile. */
struct UnpackArgs {
  const std::uint8_t* codes = nullptr;
  std::size_t panels = 0;
  std::size_t chunks = 0; // per panel
  std::size_t panel_stride = 0; // bytes of codes
  std::uint8_t* to = nullptr;
  std::size_t quad_stride = 0;
  const CodeTable* table = nullptr; // null: the codes themselves
  int plane = 0;
  const std::byte* next = nullptr;
};

template <int kBits>
HWY_NOINLINE void UnpackBits(const UnpackArgs& args) {
  const CodeTable none;
  const ByteTable table(args.table != nullptr ? *args.table : none, args.plane);
  for (std::size_t panel = 0; panel < args.panels; ++panel) {
    for (std::size_t chunk = 0; chunk < args.chunks; ++chunk) {
      const std::size_t at =
          panel * args.panel_stride + chunk * kBits * kVectorBytes;
      UnpackChunk<kBits>(
          args.codes + at,
          args.table != nullptr ? &table : nullptr,
          args.to + chunk * kChunkQuads * args.quad_stride +
              panel * kVectorBytes,
          args.quad_stride,
          args.next == nullptr ? nullptr : args.next + at);
    }
  }
}

HWY_INLINE void Unpack(std::size_t bits, const UnpackArgs& args) {
  switch (bits) {
    case 1:
      return UnpackBits<1>(args);
    case 2:
      return UnpackBits<2>(args);
    case 3:
      return UnpackBits<3>(args);
    case 4:
      return UnpackBits<4>(args);
    case 5:
      return UnpackBits<5>(args);
    case 6:
      return UnpackBits<6>(args);
    default:
      return UnpackBits<8>(args);
  }
}

/** Unpacks the channels of each width of a side into kPlanes tiles, turbo's
 * through their tables; part(from, to) says where those channels lie in the
 * first of them. The planes after it find the codes fetched. */
template <int kPlanes, class Part>
HWY_INLINE void
UnpackParts(const KvSide& side, std::size_t plane_stride, const Part& part) {
  const auto unpack = [&](std::size_t from, std::size_t to) {
    UnpackArgs args = part(from, to);
    args.table = side.code == KvCode::Turbo ? &side.table_of(from) : nullptr;
    for (args.plane = 0; args.plane < kPlanes; ++args.plane) {
      Unpack(side.bits_of(from), args);
      args.to += plane_stride;
      args.next = nullptr;
    }
  };
  if (side.wide > 0) {
    unpack(0, side.wide);
  }
  unpack(side.wide, side.dims);
}

/** The tile of a block's keys, in `memory` unless the codes are bytes; turbo's
 * has kPlanes. */
template <int kPlanes>
HWY_INLINE ByteTile UnpackKeys(
    const KvSide& side,
    const std::byte* block,
    std::uint8_t* memory,
    const std::byte* next) {
  const auto* codes = reinterpret_cast<const std::uint8_t*>(block);
  const std::size_t panel_bytes = side.codes_before(side.dims);
  if (side.bits == 8) {
    return {codes, kVectorBytes, panel_bytes, 0};
  }
  constexpr std::size_t kPanels = kBlockTokens / kPanelRows;
  const std::size_t quad_stride = kPanels * kVectorBytes;
  const std::size_t plane_stride = kBlockTokens * side.dims;
  const auto part = [&](std::size_t from, std::size_t to) -> UnpackArgs {
    const std::size_t before = side.codes_before(from);
    return {
        .codes = codes + before,
        .panels = kPanels,
        .chunks = (to - from) / kChunkInputs,
        .panel_stride = panel_bytes,
        .to = memory + from / 4 * quad_stride,
        .quad_stride = quad_stride,
        .next = next == nullptr ? nullptr : next + before};
  };
  UnpackParts<kPlanes>(side, plane_stride, part);
  return {memory, quad_stride, kVectorBytes, plane_stride};
}

/** The same of values. */
template <int kPlanes>
HWY_INLINE ByteTile UnpackValues(
    const KvSide& side,
    const std::byte* block,
    std::uint8_t* memory,
    const std::byte* next) {
  const auto* codes = reinterpret_cast<const std::uint8_t*>(block);
  constexpr std::size_t kChunks = kBlockTokens / kChunkInputs;
  if (side.bits == 8) {
    return {codes, kVectorBytes, kChunks * 8 * kVectorBytes, 0};
  }
  const std::size_t quad_stride = side.dims / kPanelRows * kVectorBytes;
  const std::size_t plane_stride = kBlockTokens * side.dims;
  const auto part = [&](std::size_t from, std::size_t to) -> UnpackArgs {
    const std::size_t before = 4 * side.codes_before(from);
    return {
        .codes = codes + before,
        .panels = (to - from) / kPanelRows,
        .chunks = kChunks,
        .panel_stride = kChunks * side.bits_of(from) * kVectorBytes,
        .to = memory + from / kPanelRows * kVectorBytes,
        .quad_stride = quad_stride,
        .next = next == nullptr ? nullptr : next + before};
  };
  UnpackParts<kPlanes>(side, plane_stride, part);
  return {memory, quad_stride, kVectorBytes, plane_stride};
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
