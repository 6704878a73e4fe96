#include "optiq/kernels/cpu/amx_panels.h"

#include <algorithm>

#include "optiq/kernels/cpu/amx_impl.h"

// A unit of 64 inputs is one product of tiles: 16 rows of digits times the 16
// quads of a panel. While its sums become floats, the next unit's tiles run: of
// the same rows, or the first of the next 16.

namespace optiq::kernels::cpu {
namespace {

constexpr std::size_t kUnitBytes = kTileBytes + 2 * kTileRows * sizeof(float);
constexpr std::size_t kTileValues = kTileBytes / sizeof(std::int32_t);
constexpr std::size_t kLineBytes = 64;

/** A unit's sums of digits. Units take turns between two sets of tiles. */
template <int kDigits, int kTurn>
OPTIQ_AMX_INLINE void multiply_unit(
    const std::uint8_t* x,
    const std::uint8_t* codes,
    std::int32_t* sums) {
  if constexpr (kTurn == 0) {
    _tile_loadd(6, codes, kTileRowBytes);
    _tile_loadd(4, x, kTileRowBytes);
    _tile_zero(0);
    _tile_dpbsud(0, 4, 6);
    if constexpr (kDigits == 2) {
      _tile_loadd(5, x + kTileBytes, kTileRowBytes);
      _tile_zero(1);
      _tile_dpbsud(1, 5, 6);
    }
    _tile_stored(0, sums, kTileRowBytes);
    if constexpr (kDigits == 2) {
      _tile_stored(1, sums + kTileValues, kTileRowBytes);
    }
  } else {
    _tile_loadd(7, codes, kTileRowBytes);
    _tile_loadd(4, x, kTileRowBytes);
    _tile_zero(2);
    _tile_dpbsud(2, 4, 7);
    if constexpr (kDigits == 2) {
      _tile_loadd(5, x + kTileBytes, kTileRowBytes);
      _tile_zero(3);
      _tile_dpbsud(3, 5, 7);
    }
    _tile_stored(2, sums, kTileRowBytes);
    if constexpr (kDigits == 2) {
      _tile_stored(3, sums + kTileValues, kTileRowBytes);
    }
  }
}

/** y += float(sums) * (scale * x's scale) + bias * x's sum, as
 * panel_kernel-inl.h has it. */
template <int kDigits>
OPTIQ_AMX_INLINE void add_unit(
    const std::int32_t* sums,
    const std::uint8_t* unit,
    const float* x_scales,
    __m512 (&y)[kTileRows]) {
  const auto* params = reinterpret_cast<const float*>(unit + kTileBytes);
  const __m512 scale = _mm512_loadu_ps(params);
  const __m512 bias = _mm512_loadu_ps(params + kTileRows);
#pragma GCC unroll 16
  for (std::size_t r = 0; r < kTileRows; ++r) {
    __m512i sum = _mm512_load_si512(sums + r * kTileRows);
    if constexpr (kDigits == 2) {
      sum = _mm512_add_epi32(
          _mm512_slli_epi32(sum, 8),
          _mm512_load_si512(sums + kTileValues + r * kTileRows));
    }
    const __m512 step = _mm512_mul_ps(scale, _mm512_set1_ps(x_scales[r]));
    y[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), step, y[r]);
    y[r] = _mm512_fmadd_ps(bias, _mm512_set1_ps(x_scales[kTileRows + r]), y[r]);
  }
}

/** Where the results of 16 rows and a panel go. */
struct Results {
  float* y;
  std::size_t stride;
  std::size_t rows;
  std::size_t columns;

  /** Lanes of row r. */
  __mmask16 lanes(std::size_t r) const {
    return r < rows ? lanes_below(columns) : __mmask16{0};
  }
};

OPTIQ_AMX_INLINE void
load(const Results& from, bool accumulate, __m512 (&y)[kTileRows]) {
#pragma GCC unroll 16
  for (std::size_t r = 0; r < kTileRows; ++r) {
    y[r] = _mm512_maskz_loadu_ps(
        accumulate ? from.lanes(r) : __mmask16{0}, from.y + r * from.stride);
  }
}

OPTIQ_AMX_INLINE void store(const __m512 (&y)[kTileRows], const Results& to) {
#pragma GCC unroll 16
  for (std::size_t r = 0; r < kTileRows; ++r) {
    _mm512_mask_storeu_ps(to.y + r * to.stride, to.lanes(r), y[r]);
  }
}

/** The bytes to fetch, some at each step. */
class Fetcher {
 public:
  Fetcher(const std::uint8_t* bytes, std::size_t n, std::size_t steps)
      : at_(bytes),
        end_(bytes == nullptr ? nullptr : bytes + n),
        each_((n + steps * kLineBytes - 1) / (steps * kLineBytes)) {}

  OPTIQ_AMX_INLINE void step() {
    for (std::size_t i = 0; i < each_ && at_ < end_; ++i) {
      _mm_prefetch(at_, _MM_HINT_T1);
      at_ += kLineBytes;
    }
  }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
  std::size_t each_;
};

template <int kDigits>
OPTIQ_AMX void multiply_panel(const TileProduct& p, std::size_t panel) {
  const ActivationLayout& layout = p.x->layout;
  const std::size_t step_bytes = kDigits * kTileBytes; // of x, per unit
  const std::size_t before = panel * kTileRows;
  const std::uint8_t* const codes = p.panels[panel];
  const auto tiles_of = [&](int row) {
    return reinterpret_cast<const std::uint8_t*>(
               p.x->cells + layout.cell_offset(row)) +
        p.first_unit * step_bytes;
  };
  alignas(64) std::int32_t sums[2][kDigits * kTileValues];
  Fetcher fetcher(p.next[panel], p.next_bytes, layout.blocks() * p.units);
  multiply_unit<kDigits, 0>(tiles_of(0), codes, sums[0]);
  std::size_t n = 0;
  constexpr int kRows = kTileRows;
  for (int row = 0; row < layout.rows; row += kRows) {
    const Results results{
        p.to.y + row * p.to.stride + before,
        p.to.stride,
        static_cast<std::size_t>(layout.rows_of_block(row)),
        p.columns - std::min(p.columns, before)};
    const float* scales =
        p.x->scales + layout.scale_offset(row) + p.first_unit * 2 * kTileRows;
    __m512 y[kTileRows];
    load(results, p.accumulate, y);
    const std::uint8_t* const tiles = tiles_of(row);
    for (std::size_t u = 0; u < p.units; ++u, ++n) {
      const bool is_last = u + 1 == p.units;
      if (!is_last || row + kRows < layout.rows) {
        const std::uint8_t* x =
            is_last ? tiles_of(row + kRows) : tiles + (u + 1) * step_bytes;
        const std::uint8_t* w = is_last ? codes : codes + (u + 1) * kUnitBytes;
        if (n % 2 == 0) {
          multiply_unit<kDigits, 1>(x, w, sums[1]);
        } else {
          multiply_unit<kDigits, 0>(x, w, sums[0]);
        }
      }
      fetcher.step();
      add_unit<kDigits>(
          sums[n % 2], codes + u * kUnitBytes, scales + u * 2 * kTileRows, y);
    }
    store(y, results);
  }
}

} // namespace

OPTIQ_AMX void multiply_tiles(const TileProduct& product) {
  const TilesInUse tiles(kTileRows);
  for (std::size_t panel = 0; panel < 2 && product.panels[panel] != nullptr;
       ++panel) {
    if (product.x->layout.digits == 2) {
      multiply_panel<2>(product, panel);
    } else {
      multiply_panel<1>(product, panel);
    }
  }
}

} // namespace optiq::kernels::cpu
