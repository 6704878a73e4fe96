#include <mlx/ops.h>

#include "optiq/kernels/mlx/checks_impl.h"
#include "optiq/kernels/mlx/operations.h"
#include "optiq/kernels/mlx/portable.h"
#include "optiq/kernels/segment_checks.h"

namespace optiq::kernels::portable {
namespace {

constexpr const char* kFunction = "gated_delta_net";

void check_arguments(
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& s) {
  const bool valid = s.n_key_heads > 0 && s.n_value_heads > 0 &&
      s.n_value_heads % s.n_key_heads == 0 && s.key_dim > 0 &&
      s.value_dim > 0 && s.conv_kernel >= 2;
  if (!valid) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] shape: found {} key heads of {}, {} value heads of {}, conv "
        "kernel {}, expected positive sizes, value heads a multiple of key "
        "heads and a kernel of 2 or more. Check the model's config.",
        kFunction,
        s.n_key_heads,
        s.key_dim,
        s.n_value_heads,
        s.value_dim,
        s.conv_kernel);
  }
  const int T = input.qkv.ndim() == 0 ? 0 : input.qkv.shape(0);
  const int Hv = s.n_value_heads;
  require_shape(kFunction, "qkv", input.qkv, {T, s.qkv_dim()});
  require_shape(kFunction, "z", input.z, {T, Hv * s.value_dim});
  require_shape(kFunction, "b", input.b, {T, Hv});
  require_shape(kFunction, "a", input.a, {T, Hv});
  require_shape(kFunction, "conv", weights.conv, {s.qkv_dim(), s.conv_kernel});
  require_shape(kFunction, "a_log", weights.a_log, {Hv});
  require_shape(kFunction, "dt_bias", weights.dt_bias, {Hv});
  require_shape(kFunction, "norm", weights.norm, {s.value_dim});
}

} // namespace

mx::array gated_delta_net(
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const Segment> segments,
    PendingBlocks& pending) {
  check_arguments(input, weights, shape);
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
