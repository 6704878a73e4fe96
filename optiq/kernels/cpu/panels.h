#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

/**
 * The packed form of an affine-quantized matrix [rows, cols]:
 *
 *   panel   16 output rows; lane r of every vector belongs to row r
 *   block   one panel x one group of `group` inputs: chunks, then 16 scales and
 *           16 biases in the file's dtype
 *   chunk   32 inputs: `bits` vectors of 16 cells of 4 bytes
 *
 * A code of b bits is cut into planes of 1, 2, 4 or 8 bits (3 = 2 + 1, 5 = 4 +
 * 1, 6 = 4 + 2; the first plane holds the low bits). A chunk stores the vectors
 * of its first plane, then those of the second. A vector of a plane of width p
 * holds 8/p quads of 4 inputs: byte i of a cell has the bits of input 4*j + i
 * at shift p*j. So a quad unpacks as (v >> (p*j)) & mask at every width.
 *
 * Blocks of a panel, then panels, follow each other: one linear stream. The
 * size is that of the file, but for rows padded to 16 (with zeros).
 */
namespace optiq::kernels::cpu {

inline constexpr int kPanelRows = 16;
inline constexpr int kChunkInputs = 32;
inline constexpr int kChunkQuads = kChunkInputs / 4;
/** Codes whose width does not divide a byte lie in two planes: bits of the
 * lower one. */
constexpr int low_plane_bits(int bits) {
  return bits == 3 ? 2 : bits == 5 || bits == 6 ? 4 : bits;
}

/** Bytes of one vector of 4-byte cells. */
inline constexpr std::size_t kVectorBytes = std::size_t{4} * kPanelRows;

enum class FloatType { BFloat16, Float16, Float32 };

constexpr std::size_t size_of(FloatType type) {
  return type == FloatType::Float32 ? 4 : 2;
}

struct PanelShape {
  int rows = 0;
  int cols = 0;
  int bits = 0;
  int group = 0;
  FloatType params = FloatType::BFloat16;

  std::size_t panels() const {
    return (static_cast<std::size_t>(rows) + kPanelRows - 1) / kPanelRows;
  }
  std::size_t blocks() const {
    return static_cast<std::size_t>(cols) / group;
  }
  std::size_t codes_bytes() const { // of a block
    return static_cast<std::size_t>(group) * bits * kPanelRows / 8;
  }
  std::size_t block_bytes() const {
    return codes_bytes() + std::size_t{2} * kPanelRows * size_of(params);
  }
  std::size_t panel_bytes() const {
    return blocks() * block_bytes();
  }
  std::size_t bytes() const {
    return panels() * panel_bytes();
  }
};

/** A whole packed matrix, 64-byte aligned. */
struct PanelWeights {
  PanelShape shape;
  const std::byte* data = nullptr;
};

/** The affine triple as files have it, rows contiguous. */
struct AffineRows {
  const void* codes; // [rows][cols * bits / 32] u32, any alignment
  const void* scales; // [rows][cols / group]
  const void* biases; // [rows][cols / group]
};

/** Packs panels [first, last) of `source` into `panels` (64-byte aligned, the
 * start of the whole matrix). */
void pack_panels(
    const PanelShape& shape,
    const AffineRows& source,
    std::size_t first,
    std::size_t last,
    std::byte* panels);

/** Dequantizes one row: code * scale + bias, in float32. */
void unpack_row(
    const PanelShape& shape,
    const std::byte* panels,
    std::size_t row,
    std::span<float> out);

/** Upconverts n values. */
void to_float(FloatType type, const void* values, std::size_t n, float* out);

} // namespace optiq::kernels::cpu
