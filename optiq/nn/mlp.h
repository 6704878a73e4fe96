#pragma once

#include "optiq/nn/linear.h"

namespace optiq::nn {

/** SwiGLU feed-forward: down(silu(gate(x)) * up(x)). */
struct Mlp {
  Linear gate_proj; // [intermediate, hidden]
  Linear up_proj; // [intermediate, hidden]
  Linear down_proj; // [hidden, intermediate]
};

/** x [T, hidden] -> [T, hidden]. */
mx::array run_mlp(const Mlp& mlp, const mx::array& x, kernels::Compute compute);

} // namespace optiq::nn
