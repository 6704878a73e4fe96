#pragma once

#include "optiq/nn/forward_context.h"
#include "optiq/nn/linear.h"

namespace optiq::nn {

/** Qwen3.5's linear attention layer (gated delta net, arXiv 2412.06464). */
struct GatedDeltaNet {
  kernels::DeltaNetShape shape;
  kernels::DeltaNetWeights weights;
  Linear in_proj_qkv; // [qkv_dim, hidden]
  Linear in_proj_z; // [n_value_heads * value_dim, hidden]
  Linear in_proj_b; // [n_value_heads, hidden]
  Linear in_proj_a; // [n_value_heads, hidden]
  Linear out_proj; // [hidden, n_value_heads * value_dim]
};

/** What the layer keeps per sequence. */
cache::RecurrentFormat recurrent_format(const GatedDeltaNet& net);

/** [T, hidden] -> [T, hidden]; the state of `layer` moves on. */
mx::array run_gated_delta_net(
    const GatedDeltaNet& net,
    int layer,
    const BlockInput& input,
    const ForwardContext& context);

} // namespace optiq::nn
