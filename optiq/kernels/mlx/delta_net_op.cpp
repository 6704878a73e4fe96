#include <mlx/ops.h>

#include "optiq/kernels/layer_checks.h"
#include "optiq/kernels/mlx/operations.h"
#include "optiq/kernels/mlx/portable.h"
#include "optiq/kernels/segment_checks.h"

namespace optiq::kernels::portable {
namespace {

constexpr const char* kFunction = "gated_delta_net";

} // namespace

mx::array gated_delta_net(
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const Segment> segments,
    PendingBlocks& pending) {
  check_delta_net_shapes(kFunction, input, weights, shape);
  check_state_segments(kFunction, segments, input.qkv.shape(0));
  std::vector<mx::array> outputs;
  for (const Segment& s : segments) {
    if (s.rows == 0) {
      continue;
    }
    const auto rows_of = [&](const mx::array& x) {
      return mx::slice(x, {s.first_row, 0}, {s.first_row + s.rows, x.shape(1)});
    };
    Block& block = block_of(s.blocks.front());
    if (block.arrays.empty()) {
      block.arrays = {
          mx::zeros(
              {shape.n_value_heads, shape.value_dim, shape.key_dim},
              mx::float32),
          mx::zeros({shape.conv_kernel - 1, shape.qkv_dim()}, mx::float32)};
    }
    const DeltaNetResult moved = portable::gated_delta_net(
        {rows_of(input.qkv),
         rows_of(input.z),
         rows_of(input.b),
         rows_of(input.a)},
        weights,
        shape,
        block.arrays[1],
        block.arrays[0]);
    block.arrays = {moved.state, moved.conv_state};
    pending.insert(&block);
    outputs.push_back(moved.y);
  }
  return outputs.empty() ? input.z : mx::concatenate(std::move(outputs), 0);
}

} // namespace optiq::kernels::portable
