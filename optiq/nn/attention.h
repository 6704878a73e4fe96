#pragma once

#include <optional>

#include "optiq/cache/sequence.h"
#include "optiq/nn/forward_context.h"
#include "optiq/nn/linear.h"

namespace optiq::nn {

/**
 * Causal grouped-query attention. What families add is data: RoPE of some kind
 * or none, norms on q and k, a sliding window, a cap on scores, an output gate.
 */
struct Attention {
  kernels::AttentionRule rule;
  int window = 0; // tokens a query sees, its own included; 0: all before it
  /** The rows of k_proj and v_proj follow those of q_proj, in one matrix. */
  bool is_fused = false;
  Linear q_proj; // [n_heads * head_dim (twice with a gate), hidden]
  std::optional<Linear> k_proj; // [n_kv_heads * head_dim, hidden]
  /** The same; none beside a k_proj: v is k before norm and RoPE. */
  std::optional<Linear> v_proj;
  int kv_layer = -1; // an earlier one whose K/V are read; -1: its own
  Linear o_proj; // [hidden, n_heads * head_dim]
};

/** What the layer keeps per sequence on a device. */
cache::LayerFormat
kv_format(const Attention& attention, mx::Dtype dtype, kernels::Device& device);

/** [T, hidden] -> [T, hidden]; K/V of `layer` are appended where it has any of
 * its own. */
mx::array run_attention(
    const Attention& attention,
    int layer,
    const BlockInput& input,
    const ForwardContext& context);

} // namespace optiq::nn
