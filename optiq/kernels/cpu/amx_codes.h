#pragma once

#include <cstddef>
#include <cstdint>

#include "optiq/kernels/cpu/amx_attention.h"

namespace optiq::kernels::cpu {

/** What a tile multiplies: 64 channels of keys, or tokens of values. */
inline constexpr std::size_t kCodeDepth = 64;

/** Digits of up to 16 queries and a tile of codes (packed_tiles-inl.h). */
struct CodeProduct {
  const std::int8_t* digits = nullptr; // row r from + r * digit_stride on, [64]
  std::size_t digit_stride = 0;
  std::size_t next_digit = 0; // from a row's digit to its next one
  std::size_t n = 0; // rows
  const std::uint8_t* codes = nullptr; // [16 quads][panels of 16 lanes][16][4]
  std::size_t quad_stride = 0;
  std::size_t panel_stride = 0;
  std::size_t plane_stride = 0;
  std::size_t panels = 0;
  int places = 1; // digits of a row
  int planes = 1;
  std::int32_t* sums = nullptr; // [n][places][...][lanes]
  std::size_t sum_stride = 0; // of rows
  std::size_t next_place = 0;
};

/** sums[r][i + j][lane] = sum over the depth of digit i of r and plane j, where
 * i + j is a place (TDPBSUD: exact). */
void multiply_codes(const CodeProduct& product, QueryTiles& tiles);

} // namespace optiq::kernels::cpu
