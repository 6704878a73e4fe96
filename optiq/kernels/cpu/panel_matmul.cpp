#include "optiq/kernels/cpu/panel_matmul.h"

#include "optiq/kernels/cpu/amx.h"
#include "optiq/kernels/cpu/panel_matmul_impl.h"

namespace optiq::kernels::cpu {
namespace {

constexpr int kTileInputs = 64; // of a unit that is a tile

} // namespace

ActivationLayout
activation_layout(int rows, int cols, int group, int bits, int digits) {
  ActivationLayout layout;
  layout.rows = rows;
  layout.cols = cols;
  layout.unit = unit_inputs(group);
  layout.digits = digits;
  if (rows > kDirectRows && layout.unit == kTileInputs && uses_amx()) {
    layout.form = CellForm::Tiles;
    layout.block_rows = kTileRows;
    layout.fills_up = true;
    return layout;
  }
  layout.fills_up = rows > kFewBlockRows && rows < kMostBlockRows;
  if (reads_words(layout.fills_up ? kMostBlockRows : rows, bits, digits)) {
    layout.form = CellForm::Words;
  }
  if (rows > kDirectRows && digits == 2) {
    // 8 rows x 2 panels fill the registers of the tiled kernel; two digits
    // count as two rows there.
    layout.block_rows = kFewBlockRows;
  }
  return layout;
}

void multiply_panels(
    const Activations& x,
    const PanelWeights& weights,
    std::size_t first,
    std::size_t last,
    const Output& to) {
  if (x.layout.rows <= kDirectRows) {
    multiply_direct(x, weights, first, last, to);
  } else {
    multiply_tiled(x, weights, first, last, to);
  }
}

} // namespace optiq::kernels::cpu
