#include "optiq/kernels/cpu/kv_append.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/kv_append.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/highway.h"

#include "optiq/kernels/cpu/affine_group-inl.h"
#include "optiq/kernels/cpu/block_memory.h"
#include "optiq/kernels/cpu/panels.h"
#include "optiq/kernels/cpu/rotation-inl.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {
namespace {

using U32 = hn::RebindToUnsigned<F32>;
using VU32 = hn::Vec<U32>;

/** Largest finite f16: longer vectors are stored with it. */
constexpr float kMaxNorm = 65504.f;

/** NaN when a value is not finite, else 0. */
HWY_INLINE float NotFinite(const float* x, std::size_t n) {
  const F32 d;
  VF32 sum = hn::Zero(d);
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    sum = hn::MulAdd(hn::LoadU(d, x + i), hn::Zero(d), sum);
  }
  return hn::ReduceSum(d, sum);
}

/** One code per byte; scales and biases into column `column` of params. */
HWY_INLINE void EncodeAffine(
    const KvSide& side,
    const float* x,
    std::size_t column,
    std::uint8_t* codes,
    std::byte* params) {
  auto* to = reinterpret_cast<hwy::bfloat16_t*>(params) + column;
  for (std::size_t at = 0; at < side.head_dim; at += side.group) {
    const std::size_t n = std::min(side.group, side.head_dim - at);
    const affine::Affine fit = affine::QuantizeGroup(
        x + at, static_cast<int>(n), static_cast<int>(side.bits), codes + at);
    // A code cannot say NaN or infinity; the bias of its group does.
    to[0] = hwy::BF16FromF32(fit.scale);
    to[kBlockTokens] = hwy::BF16FromF32(fit.bias + NotFinite(x + at, n));
    to += 2 * kBlockTokens;
  }
}

/** codes[i] = number of edges below z[i]. */
HWY_INLINE void Classify(
    const CodeTable& table,
    const float* x,
    float scale,
    std::size_t n,
    std::uint8_t* codes) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const hn::Rebind<std::uint8_t, hn::RebindToSigned<F32>> d8;
  const int edges = (1 << table.bits) - 1;
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    const VF32 z = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, scale));
    auto code = hn::Zero(di);
    for (int e = 0; e < edges; ++e) {
      const auto above = hn::Gt(z, hn::Set(d, table.edges[e]));
      // A mask is -1.
      code = hn::Sub(code, hn::VecFromMask(di, hn::RebindMask(di, above)));
    }
    hn::StoreU(hn::DemoteTo(d8, code), d8, codes + i);
  }
}

HWY_INLINE void EncodeTurbo(
    const KvSide& side,
    const float* x,
    std::size_t column,
    std::uint8_t* codes,
    std::byte* params) {
  HWY_ALIGN float rotated[kMaxHeadDim];
  const std::size_t dim = side.head_dim;
  Rotate(side.rotation, dim, false, x, rotated);
  const F32 d;
  const float norm = std::sqrt(Dot(d, rotated, rotated, dim));
  const float scale =
      norm > 0.f ? std::sqrt(static_cast<float>(dim)) / norm : 0.f;
  if (side.wide > 0) {
    Classify(*side.wide_table, rotated, scale, side.wide, codes);
  }
  Classify(
      *side.table,
      rotated + side.wide,
      scale,
      dim - side.wide,
      codes + side.wide);
  const float stored = std::isfinite(norm) ? std::min(norm, kMaxNorm) : norm;
  reinterpret_cast<hwy::float16_t*>(params)[column] = hwy::F16FromF32(stored);
}

struct Planes {
  std::uint32_t low = 0; // width of the first
  std::uint32_t high = 0; // of the second, or 0
};

HWY_INLINE Planes planes_of(std::size_t bits) {
  const auto b = static_cast<std::uint32_t>(bits);
  const auto low =
      static_cast<std::uint32_t>(low_plane_bits(static_cast<int>(bits)));
  return {low, b - low};
}

/** One plane of a token's 32 channels into its 4-byte cells; `vectors` of
 * them, one per 8 / width quads. */
HWY_INLINE void PackKeyPlane(
    const std::uint8_t* codes,
    std::uint32_t width,
    std::uint32_t shift,
    std::uint8_t* cell) {
  const std::uint32_t mask = ((1u << width) - 1) * 0x01010101u;
  const std::size_t per_vector = 8 / width;
  for (std::size_t v = 0; v < width; ++v) {
    std::uint32_t word = 0;
    for (std::size_t j = 0; j < per_vector; ++j) {
      std::uint32_t quad;
      std::memcpy(&quad, codes + 4 * (v * per_vector + j), 4);
      word |= ((quad >> shift) & mask) << (width * j);
    }
    std::memcpy(cell + v * kVectorBytes, &word, 4);
  }
}

/** A token's codes into its lane of the keys. */
HWY_INLINE void PackKey(
    const KvSide& side,
    const std::uint8_t* codes,
    std::size_t column,
    std::uint8_t* to) {
  std::uint8_t* cell = to + column / kPanelRows * side.codes_before(side.dims) +
      column % kPanelRows * 4;
  for (std::size_t at = 0; at < side.dims; at += kChunkInputs) {
    const Planes planes = planes_of(side.bits_of(at));
    PackKeyPlane(codes + at, planes.low, 0, cell);
    cell += planes.low * kVectorBytes;
    if (planes.high > 0) {
      PackKeyPlane(codes + at, planes.high, planes.low, cell);
      cell += planes.high * kVectorBytes;
    }
  }
}

/** One plane of 16 channels of a token: a few bits of a byte of each cell. */
HWY_INLINE void PackValuePlane(
    const std::uint8_t* codes,
    std::uint32_t width,
    std::uint32_t shift,
    std::size_t token, // in its chunk of 32
    std::uint8_t* plane) {
  const std::uint32_t per_vector = 8 / width;
  const auto quad = static_cast<std::uint32_t>(token / 4);
  const std::uint32_t mask = (1u << width) - 1;
  const std::uint32_t at = width * (quad % per_vector);
  std::uint8_t* byte = plane + quad / per_vector * kVectorBytes + token % 4;
  for (std::size_t lane = 0; lane < kPanelRows; ++lane) {
    const std::uint32_t code = (codes[lane] >> shift) & mask;
    byte[4 * lane] = static_cast<std::uint8_t>(
        (byte[4 * lane] & ~(mask << at)) | (code << at));
  }
}

/** A token's codes into its input of the values. */
HWY_INLINE void PackValue(
    const KvSide& side,
    const std::uint8_t* codes,
    std::size_t column,
    std::uint8_t* to) {
  const std::size_t chunk = column / kChunkInputs;
  const std::size_t token = column % kChunkInputs;
  for (std::size_t at = 0; at < side.dims; at += kPanelRows) {
    const std::size_t bits = side.bits_of(at);
    const Planes planes = planes_of(bits);
    std::uint8_t* plane =
        to + 4 * side.codes_before(at) + chunk * bits * kVectorBytes;
    PackValuePlane(codes + at, planes.low, 0, token, plane);
    if (planes.high > 0) {
      PackValuePlane(
          codes + at,
          planes.high,
          planes.low,
          token,
          plane + planes.low * kVectorBytes);
    }
  }
}

/** One packed vector into column `column` of its side. */
HWY_INLINE void EncodePacked(
    const KvSide& side,
    bool is_key,
    const float* x,
    std::size_t column,
    std::byte* to) {
  alignas(64) std::uint8_t codes[kMaxHeadDim] = {};
  std::byte* params = to + side.codes_bytes();
  if (side.code == KvCode::Affine) {
    EncodeAffine(side, x, column, codes, params);
  } else {
    EncodeTurbo(side, x, column, codes, params);
  }
  auto* bytes = reinterpret_cast<std::uint8_t*>(to);
  if (is_key) {
    PackKey(side, codes, column, bytes);
  } else {
    PackValue(side, codes, column, bytes);
  }
}

/** x as bfloat16 in the upper halves: round to nearest even, subnormals too
 * (the instruction would drop them). */
HWY_INLINE VU32 RoundToUpper(VF32 x) {
  const U32 du;
  const VU32 bits = hn::BitCast(du, x);
  const VU32 odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const VU32 rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff)));
  const VU32 quiet = hn::Or(bits, hn::Set(du, 0x400000));
  const auto nan = hn::RebindMask(du, hn::IsNaN(x));
  return hn::And(hn::IfThenElse(nan, quiet, rounded), hn::Set(du, 0xffff0000u));
}

/** A token's channels into its column of the pairs [head_dim / 2][64]. */
HWY_INLINE void PutKeyPairs(
    const float* x,
    std::size_t dim,
    std::size_t column,
    std::uint32_t* to) {
  const F32 d;
  const U32 du;
  HWY_ALIGN std::uint32_t upper[hn::MaxLanes(F32())];
  for (std::size_t at = 0; at < dim; at += hn::Lanes(d)) {
    hn::StoreU(RoundToUpper(hn::LoadN(d, x + at, dim - at)), du, upper);
    const std::size_t n = std::min(hn::Lanes(d), dim - at);
    for (std::size_t i = 0; i < n; i += 2) {
      to[(at + i) / 2 * kBlockTokens + column] = upper[i] >> 16 | upper[i + 1];
    }
  }
}

/** A token's channels into its half of the pairs [32][head_dim]. */
HWY_INLINE void PutValuePairs(
    const float* x,
    std::size_t dim,
    std::size_t column,
    std::uint32_t* to) {
  const F32 d;
  const U32 du;
  const bool odd = column % 2 == 1;
  const VU32 partner = hn::Set(du, odd ? 0x0000ffffu : 0xffff0000u);
  to += column / 2 * dim;
  for (std::size_t i = 0; i < dim; i += hn::Lanes(d)) {
    const std::size_t n = std::min(hn::Lanes(d), dim - i);
    const VU32 upper = RoundToUpper(hn::LoadN(d, x + i, n));
    const VU32 kept = hn::And(hn::LoadN(du, to + i, n), partner);
    const VU32 mine = odd ? upper : hn::ShiftRight<16>(upper);
    hn::StoreN(hn::Or(kept, mine), du, to + i, n);
  }
}

/** A token's channels as they are. */
HWY_INLINE void PutFloats(
    const float* x,
    std::size_t dim,
    bool is_key,
    std::size_t column,
    float* to) {
  if (!is_key) {
    std::copy_n(x, dim, to + column * dim);
    return;
  }
  for (std::size_t i = 0; i < dim; ++i) {
    to[i * kBlockTokens + column] = x[i];
  }
}

/** One vector into column `column` of its side. */
void EncodeVector(
    const KvSide& side,
    bool is_key,
    const float* x,
    std::size_t column,
    std::byte* to) {
  const std::size_t dim = side.head_dim;
  if (side.packed()) {
    EncodePacked(side, is_key, x, column, to);
  } else if (side.code == KvCode::Float32) {
    PutFloats(x, dim, is_key, column, reinterpret_cast<float*>(to));
  } else if (is_key) {
    PutKeyPairs(x, dim, column, reinterpret_cast<std::uint32_t*>(to));
  } else {
    PutValuePairs(x, dim, column, reinterpret_cast<std::uint32_t*>(to));
  }
}

void RotateRows(
    const RotationView& rotation,
    std::size_t dim,
    bool inverse,
    const float* from,
    std::size_t rows,
    float* to) {
  for (std::size_t i = 0; i < rows; ++i) {
    Rotate(rotation, dim, inverse, from + i * dim, to + i * dim);
  }
}

} // namespace
} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {
namespace {

HWY_EXPORT(EncodeVector);
HWY_EXPORT(RotateRows);

/** n tokens of one side of one head, from `column` of its block on. */
void append_side(
    const float* x,
    std::size_t row,
    const KvSide& side,
    bool is_key,
    std::size_t column,
    std::size_t n,
    std::byte* block) {
  for (std::size_t t = 0; t < n; ++t) {
    HWY_DYNAMIC_DISPATCH(EncodeVector)
    (side, is_key, x + t * row, column + t, block);
  }
}

} // namespace

void append_kv(
    const float* k,
    const float* v,
    const KvLayout& layout,
    const AttentionTile& tile) {
  const std::size_t row = layout.n_kv_heads * layout.head_dim;
  const std::size_t end = tile.start + tile.rows;
  for (std::size_t position = tile.start; position < end;) {
    const std::size_t column = position % kBlockTokens;
    const std::size_t n = std::min(kBlockTokens - column, end - position);
    std::byte* keys = address_of(tile.blocks[position / kBlockTokens]) +
        tile.kv_head * layout.head_bytes();
    const std::size_t first = (tile.first_row + position - tile.start) * row +
        tile.kv_head * layout.head_dim;
    append_side(k + first, row, layout.key, true, column, n, keys);
    append_side(
        v + first,
        row,
        layout.value,
        false,
        column,
        n,
        keys + layout.key.bytes());
    position += n;
  }
}

void rotate_rows(
    const RotationView& rotation,
    std::size_t dim,
    bool inverse,
    const float* from,
    std::size_t rows,
    float* to) {
  HWY_DYNAMIC_DISPATCH(RotateRows)(rotation, dim, inverse, from, rows, to);
}

} // namespace optiq::kernels::cpu
#endif
