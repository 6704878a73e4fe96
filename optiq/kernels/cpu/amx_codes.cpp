#include "optiq/kernels/cpu/amx_codes.h"

#include <algorithm>

#include "optiq/kernels/cpu/amx_impl.h"

namespace optiq::kernels::cpu {
namespace {

/** A place of two panels. */
OPTIQ_AMX_INLINE void multiply_place(
    const CodeProduct& p,
    int place,
    std::size_t panel,
    std::int32_t* sums) {
  _tile_zero(0);
  _tile_zero(1);
  for (int plane = 0; plane <= std::min(place, p.planes - 1); ++plane) {
    const std::int8_t* digits = p.digits + (place - plane) * p.next_digit;
    const std::uint8_t* codes =
        p.codes + plane * p.plane_stride + panel * p.panel_stride;
    _tile_loadd(4, digits, p.digit_stride);
    _tile_loadd(6, codes, p.quad_stride);
    _tile_dpbsud(0, 4, 6);
    _tile_loadd(7, codes + p.panel_stride, p.quad_stride);
    _tile_dpbsud(1, 4, 7);
  }
  const std::size_t row_bytes = p.sum_stride * sizeof(*sums);
  _tile_stored(0, sums, row_bytes);
  _tile_stored(1, sums + kTileRows, row_bytes);
}

OPTIQ_AMX void multiply_panels(const CodeProduct& p) {
  for (std::size_t panel = 0; panel < p.panels; panel += 2) {
    for (int place = 0; place < p.places; ++place) {
      multiply_place(
          p, place, panel, p.sums + place * p.next_place + panel * kTileRows);
    }
  }
}

} // namespace

void multiply_codes(const CodeProduct& product, QueryTiles& tiles) {
  tiles.set_rows(product.n);
  multiply_panels(product);
}

} // namespace optiq::kernels::cpu
