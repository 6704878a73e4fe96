#include <algorithm>

#include "optiq/kernels/cpu/panel_matmul_impl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/panel_direct.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

#include "optiq/kernels/cpu/panel_kernel-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {

/** Kernels of one width for one panel vector, by log2 of the rows. */
template <int kBits, int kDigits>
constexpr Kernel kDirect[4] = {
    MultiplyBlock<kBits, kDigits, 1, 1>,
    MultiplyBlock<kBits, kDigits, 2, 1>,
    MultiplyBlock<kBits, kDigits, 4, 1>,
    MultiplyBlock<kBits, kDigits, 8, 1>};

template <int kDigits>
Kernel DirectKernel(int bits, int rows) {
  static constexpr const Kernel(*kWidths[])[4] = {
      &kDirect<2, kDigits>,
      &kDirect<3, kDigits>,
      &kDirect<4, kDigits>,
      &kDirect<5, kDigits>,
      &kDirect<6, kDigits>,
      &kDirect<8, kDigits>};
  return (*kWidths[bits == 8 ? 5 : bits - 2])[log2_rows(rows)];
}

/** Up to 8 rows: straight from the packed panels, which are read once. */
void MultiplyDirect(
    const Activations& x,
    const PanelWeights& weights,
    std::size_t first,
    std::size_t last,
    const Output& to) {
  const PanelShape& shape = weights.shape;
  const auto* panels = reinterpret_cast<const std::uint8_t*>(weights.data);
  const int rows = x.layout.rows_of_block(0);
  const Kernel kernel = x.layout.digits == 2
      ? DirectKernel<2>(shape.bits, rows)
      : DirectKernel<1>(shape.bits, rows);
  KernelArgs args = MakeArgs(shape);
  args.block_bytes = shape.block_bytes();
  args.blocks = shape.blocks();
  args.cells = x.cells;
  args.scales = x.scales;
  args.y_rows = x.layout.rows;
  args.y_stride = to.stride;
  for (std::size_t panel = first; panel < last; ++panel) {
    for (int part = 0; part < kParts; ++part) {
      const std::size_t col = panel * kPanelRows + part * kLanes;
      args.block = panels + panel * shape.panel_bytes() + part * kLanes * 4;
      args.params = panels + panel * shape.panel_bytes() + shape.codes_bytes() +
          part * kLanes * size_of(shape.params);
      args.y = to.y + (col - first * kPanelRows);
      args.y_cols =
          static_cast<std::size_t>(shape.rows) > col ? shape.rows - col : 0;
      kernel(args);
    }
  }
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace optiq::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(MultiplyDirect);

void multiply_direct(
    const Activations& x,
    const PanelWeights& weights,
    std::size_t first,
    std::size_t last,
    const Output& to) {
  HWY_DYNAMIC_DISPATCH(MultiplyDirect)(x, weights, first, last, to);
}

} // namespace optiq::kernels::cpu
#endif
