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

constexpr int kKernels = kFewBlockRows + 1;

/** Kernels of one width for one panel vector, as kernel_of_rows counts. */
template <int kBits, int kDigits>
constexpr Kernel kDirect[kKernels] = {
    MultiplyBlock<kBits, kDigits, 1, 1>,
    MultiplyBlock<kBits, kDigits, 2, 1>,
    MultiplyBlock<kBits, kDigits, 3, 1>,
    MultiplyBlock<kBits, kDigits, 4, 1>,
    MultiplyBlock<kBits, kDigits, 8, 1>};

template <int kDigits>
Kernel DirectKernel(int bits, int rows) {
  static constexpr const Kernel(*kWidths[])[kKernels] = {
      &kDirect<2, kDigits>,
      &kDirect<3, kDigits>,
      &kDirect<4, kDigits>,
      &kDirect<5, kDigits>,
      &kDirect<6, kDigits>,
      &kDirect<8, kDigits>};
  return (*kWidths[bits == 8 ? 5 : bits - 2])[kernel_of_rows(rows)];
}

bool ReadsWords(int rows, int bits, int digits) {
  return kPairsOfBytes && digits == 2 && (bits == 8 || rows >= kMostBlockRows);
}

/** Straight from the packed panels, which are read from memory once. */
void MultiplyDirect(
    const Activations& x,
    const PanelWeights& weights,
    std::size_t first,
    std::size_t last,
    const Output& to) {
  const PanelShape& shape = weights.shape;
  const ActivationLayout& layout = x.layout;
  const auto* panels = reinterpret_cast<const std::uint8_t*>(weights.data);
  const auto kernel_for =
      layout.digits == 2 ? DirectKernel<2> : DirectKernel<1>;
  KernelArgs args = MakeArgs(shape);
  args.block_bytes = shape.block_bytes();
  args.blocks = shape.blocks();
  args.y_stride = to.stride;
  for (std::size_t panel = first; panel < last; ++panel) {
    for (std::size_t part = 0; part < kParts; ++part) {
      const std::size_t col = panel * kPanelRows + part * kLanes;
      args.block = panels + panel * shape.panel_bytes() + part * kLanes * 4;
      args.params = panels + panel * shape.panel_bytes() + shape.codes_bytes() +
          part * kLanes * size_of(shape.params);
      args.y_cols =
          static_cast<std::size_t>(shape.rows) > col ? shape.rows - col : 0;
      for (int row = 0; row < layout.rows;) {
        const int rows = layout.rows_of_block(row);
        args.cells = x.cells + layout.cell_offset(row);
        args.scales = x.scales + layout.scale_offset(row);
        args.y = to.y + row * to.stride + (col - first * kPanelRows);
        args.y_rows = rows;
        kernel_for(shape.bits, layout.stored_rows_of_block(row))(args);
        row += rows;
      }
    }
  }
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace optiq::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(ReadsWords);
HWY_EXPORT(MultiplyDirect);

bool reads_words(int rows, int bits, int digits) {
  return HWY_DYNAMIC_DISPATCH(ReadsWords)(rows, bits, digits);
}

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
