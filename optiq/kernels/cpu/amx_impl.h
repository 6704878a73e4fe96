#pragma once

#include <cstddef>
#include <cstdint>

#include <immintrin.h>

#include "optiq/kernels/cpu/amx.h"

/** What the sources with tiles share. Their functions ask for the instructions
 * one by one: a file compiled for them would leave copies of the standard
 * library's inline functions that other machines cannot run. */
#define OPTIQ_AMX                                                          \
  __attribute__((                                                          \
      target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,amx-tile," \
             "amx-int8,amx-bf16")))
#define OPTIQ_AMX_INLINE OPTIQ_AMX __attribute__((always_inline)) inline

namespace optiq::kernels::cpu {

inline constexpr std::size_t kTileRowBytes = 64;
inline constexpr std::size_t kTileBytes = kTileRows * kTileRowBytes;

/** The shapes of this thread's tiles until they are released: 0 to 3 are sums
 * of `rows` rows and `columns` columns, 4 and 5 the rows of the first operand,
 * 6 and 7 the columns of the second. */
OPTIQ_AMX_INLINE void configure_tiles(std::size_t columns, std::size_t rows) {
  struct alignas(64) {
    std::uint8_t palette = 1;
    std::uint8_t unused[15] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
  } shapes;
  for (int i = 0; i < 8; ++i) {
    const bool is_first = i == 4 || i == 5;
    shapes.rows[i] = static_cast<std::uint8_t>(i < 6 ? rows : kTileRows);
    shapes.row_bytes[i] =
        static_cast<std::uint16_t>(is_first ? kTileRowBytes : 4 * columns);
  }
  // GCC 12 believes that 8 bytes of it are read, and that loads of tiles read
  // nothing.
  asm volatile("" ::: "memory");
  _tile_loadconfig(&shapes);
}

/** Tiles left in use would slow down whatever runs next. */
OPTIQ_AMX_INLINE void release_tiles() {
  _tile_release();
}

/** Tiles of 16 rows while it lives. */
class TilesInUse {
 public:
  OPTIQ_AMX_INLINE explicit TilesInUse(std::size_t columns) {
    configure_tiles(columns, kTileRows);
  }
  OPTIQ_AMX_INLINE ~TilesInUse() {
    release_tiles();
  }
  TilesInUse(const TilesInUse&) = delete;
  TilesInUse& operator=(const TilesInUse&) = delete;
};

/** Rows become columns, of 16 x 16 values of 4 bytes. */
OPTIQ_AMX_INLINE void transpose(__m512i (&v)[kTileRows]) {
  __m512i t[kTileRows];
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kTileRows; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
#pragma GCC unroll 4
  for (std::size_t i = 0; i < kTileRows; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // v[4 q + i] has, per 128 bits j, column 4 j + i of rows 4 q to 4 q + 3.
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    v[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    v[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

/** Lanes [0, n) of 16. */
inline __mmask16 lanes_below(std::size_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffff : (1U << n) - 1);
}

} // namespace optiq::kernels::cpu
