#pragma once

#include <cstdint>

/**
 * How rows lie for the products of many rows (product_wide.cu): in the order in
 * which wgmma reads its B operand from shared memory, so that a tile of rows
 * and columns is one copy.
 *
 *   digits  f16 [digits][tiles of 128 rows][tiles of 64 columns][128][64]
 *   sums    f32 [tiles of 128 rows][tiles of 64 columns][128]
 *
 * A row of a tile is 128 bytes, whose eight 16-byte pieces are swapped by the
 * row's last three bits (the 128-byte swizzle). Of every 32 columns, 8 t + 4 h
 * + 2 m + e stands at 16 h + 8 m + 2 t + e: that is the place where lane t of
 * the A operand has it (packed_layout.h).
 *
 * Functions are shared by host and card.
 */
namespace optiq::kernels::cuda {

inline constexpr int kWideRows = 128;
inline constexpr int kWideColumns = 64;
// Of a block: tiles of 16 outputs, a warp for each, and one that copies.
inline constexpr int kWideTiles = 8;
inline constexpr int kWideThreads = 32 * (kWideTiles + 1);

/** Where column i stands among its 64. */
constexpr int wide_column(int i) {
  const int t = i / 8 % 4;
  const int h = i / 4 % 2;
  const int m = i / 2 % 2;
  return i / 32 % 2 * 32 + 16 * h + 8 * m + 2 * t + i % 2;
}

/** Of a row and a column, from the begin of the row's tile. */
constexpr std::int64_t wide_place(int row, int column) {
  const int at = wide_column(column);
  const std::int64_t tile = column / kWideColumns;
  const int in_row = (at / 8 ^ row % 8) * 8 + at % 8;
  return (tile * kWideRows + row) * kWideColumns + in_row;
}

} // namespace optiq::kernels::cuda
