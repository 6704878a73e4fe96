#include "optiq/kernels/cpu/panels.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include <hwy/base.h>

namespace optiq::kernels::cpu {
namespace {

static_assert(std::endian::native == std::endian::little);

/** Where the bits of one quad of a chunk lie: a row of data per plane. */
struct Plane {
  int width; // bits of the code in this plane
  int low; // the lowest of them
  int first_vector; // in the chunk
};

struct Planes {
  Plane plane[2];
  int count;
};

Planes planes_of(int bits) {
  const int low = low_plane_bits(bits);
  return {{{low, 0, 0}, {bits - low, low, low}}, low == bits ? 1 : 2};
}

/** The four codes of quad q of a row, one per byte. */
std::uint32_t quad_codes(const std::byte* row, int bits, std::size_t q) {
  // 4 * bits <= 32 bits that start on a multiple of 4 bits: 5 bytes hold them.
  const std::size_t quad_bits = std::size_t{4} * bits;
  const std::size_t first_bit = quad_bits * q;
  const std::size_t bytes = (first_bit % 8 + quad_bits + 7) / 8;
  std::uint64_t word = 0;
  std::memcpy(&word, row + first_bit / 8, bytes);
  word >>= first_bit % 8;
  const std::uint64_t mask = (1u << bits) - 1;
  std::uint64_t codes = 0;
  for (int i = 0; i < 4; ++i) {
    codes |= ((word >> (bits * i)) & mask) << (8 * i);
  }
  return static_cast<std::uint32_t>(codes);
}

/** Adds the codes of quad q to the cells of one lane of a (zeroed) chunk. */
void put_quad(
    std::uint32_t codes,
    const Planes& planes,
    int q,
    std::byte* lane_cells) {
  for (int i = 0; i < planes.count; ++i) {
    const Plane& p = planes.plane[i];
    const int per_vector = 8 / p.width;
    std::byte* cell =
        lane_cells + (p.first_vector + q / per_vector) * kVectorBytes;
    const std::uint32_t mask = 0x01010101u * ((1u << p.width) - 1);
    const std::uint32_t bits = ((codes >> p.low) & mask)
        << (p.width * (q % per_vector));
    std::uint32_t value;
    std::memcpy(&value, cell, sizeof(value));
    value |= bits;
    std::memcpy(cell, &value, sizeof(value));
  }
}

std::uint32_t
get_quad(const Planes& planes, int q, const std::byte* lane_cells) {
  std::uint32_t codes = 0;
  for (int i = 0; i < planes.count; ++i) {
    const Plane& p = planes.plane[i];
    const int per_vector = 8 / p.width;
    std::uint32_t value;
    std::memcpy(
        &value,
        lane_cells + (p.first_vector + q / per_vector) * kVectorBytes,
        sizeof(value));
    const std::uint32_t mask = 0x01010101u * ((1u << p.width) - 1);
    codes |= ((value >> (p.width * (q % per_vector))) & mask) << p.low;
  }
  return codes;
}

} // namespace

void pack_panels(
    const PanelShape& shape,
    const AffineRows& source,
    std::size_t first,
    std::size_t last,
    std::byte* panels) {
  const Planes planes = planes_of(shape.bits);
  const std::size_t row_bytes =
      static_cast<std::size_t>(shape.cols) * shape.bits / 8;
  const std::size_t blocks = shape.blocks();
  const std::size_t param_bytes = size_of(shape.params);
  const auto* codes = static_cast<const std::byte*>(source.codes);
  const auto* scales = static_cast<const std::byte*>(source.scales);
  const auto* biases = static_cast<const std::byte*>(source.biases);
  for (std::size_t panel = first; panel < last; ++panel) {
    std::byte* base = panels + panel * shape.panel_bytes();
    std::memset(base, 0, shape.panel_bytes());
    const std::size_t row0 = panel * kPanelRows;
    const std::size_t rows =
        std::min<std::size_t>(kPanelRows, shape.rows - row0);
    for (std::size_t lane = 0; lane < rows; ++lane) {
      const std::byte* row = codes + (row0 + lane) * row_bytes;
      for (std::size_t b = 0; b < blocks; ++b) {
        std::byte* block = base + b * shape.block_bytes();
        const std::size_t quads = shape.group / 4;
        for (std::size_t q = 0; q < quads; ++q) {
          std::byte* chunk =
              block + q / kChunkQuads * kVectorBytes * shape.bits;
          put_quad(
              quad_codes(row, shape.bits, b * quads + q),
              planes,
              static_cast<int>(q % kChunkQuads),
              chunk + 4 * lane);
        }
        std::byte* params = block + shape.codes_bytes() + lane * param_bytes;
        const std::size_t at = ((row0 + lane) * blocks + b) * param_bytes;
        std::memcpy(params, scales + at, param_bytes);
        std::memcpy(
            params + kPanelRows * param_bytes, biases + at, param_bytes);
      }
    }
  }
}

void unpack_row(
    const PanelShape& shape,
    const std::byte* panels,
    std::size_t row,
    std::span<float> out) {
  const Planes planes = planes_of(shape.bits);
  const std::size_t lane = row % kPanelRows;
  const std::size_t param_bytes = size_of(shape.params);
  const std::byte* block = panels + row / kPanelRows * shape.panel_bytes();
  for (std::size_t b = 0; b < shape.blocks(); ++b) {
    const std::byte* params = block + shape.codes_bytes() + lane * param_bytes;
    float scale;
    float bias;
    to_float(shape.params, params, 1, &scale);
    to_float(shape.params, params + kPanelRows * param_bytes, 1, &bias);
    float* group = out.data() + b * shape.group;
    for (int q = 0; q < shape.group / 4; ++q) {
      const std::byte* chunk =
          block + q / kChunkQuads * kVectorBytes * shape.bits;
      const std::uint32_t codes =
          get_quad(planes, q % kChunkQuads, chunk + 4 * lane);
      for (int i = 0; i < 4; ++i) {
        const auto code = static_cast<float>((codes >> (8 * i)) & 0xff);
        group[4 * q + i] = code * scale + bias;
      }
    }
    block += shape.block_bytes();
  }
}

void to_float(FloatType type, const void* values, std::size_t n, float* out) {
  const auto* bytes = static_cast<const std::byte*>(values);
  for (std::size_t i = 0; i < n; ++i) {
    std::uint16_t half;
    switch (type) {
      case FloatType::Float32:
        std::memcpy(out + i, bytes + 4 * i, 4);
        break;
      case FloatType::BFloat16:
        std::memcpy(&half, bytes + 2 * i, 2);
        out[i] = std::bit_cast<float>(std::uint32_t{half} << 16);
        break;
      case FloatType::Float16:
        std::memcpy(&half, bytes + 2 * i, 2);
        out[i] = hwy::F32FromF16(hwy::float16_t::FromBits(half));
        break;
    }
  }
}

} // namespace optiq::kernels::cpu
