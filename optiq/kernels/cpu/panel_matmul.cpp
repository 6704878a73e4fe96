#include "optiq/kernels/cpu/panel_matmul.h"

#include "optiq/kernels/cpu/panel_matmul_impl.h"

namespace optiq::kernels::cpu {

ActivationLayout
activation_layout(int rows, int cols, int group, int bits, int digits) {
  // 8 rows x 2 panels fill the registers of the tiled kernel; two digits count
  // as two rows there.
  const int most =
      rows > kDirectRows && digits == 2 ? kFewBlockRows : kMostBlockRows;
  ActivationLayout layout;
  layout.rows = rows;
  layout.cols = cols;
  layout.unit = unit_inputs(group);
  layout.digits = digits;
  layout.has_words = reads_words(rows, bits, digits);
  layout.block_rows = most;
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
