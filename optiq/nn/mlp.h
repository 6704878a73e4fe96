#pragma once

#include <optional>

#include "optiq/nn/linear.h"

namespace optiq::nn {

/** Gated feed-forward: down(activation(gate(x)) * up(x)). */
struct Mlp {
  kernels::Activation activation = kernels::Activation::Silu;
  Linear gate_proj; // [intermediate, hidden]
  /** The same; none: its rows follow those of gate_proj, in one matrix. */
  std::optional<Linear> up_proj;
  Linear down_proj; // [hidden, intermediate]
};

/** [T, hidden] -> [T, hidden]. */
mx::array
run_mlp(const Mlp& mlp, const BlockInput& input, const ForwardContext& context);

} // namespace optiq::nn
