#pragma once

#include <vector>

#include "optiq/nn/forward_context.h"
#include "optiq/nn/linear.h"

namespace optiq::nn {

/**
 * Qwen3.5's full attention: q and k normalized per head, partial RoPE, causal
 * GQA attention, output gated by sigmoid(gate) before o_proj.
 */
struct GatedAttention {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  float norm_eps = 0.f;
  std::vector<float> inverse_frequencies; // [rotary_dim / 2]
  Linear q_proj; // [n_heads * 2 * head_dim, hidden]: per head q, then gate
  Linear k_proj; // [n_kv_heads * head_dim, hidden]
  Linear v_proj; // [n_kv_heads * head_dim, hidden]
  Linear o_proj; // [hidden, n_heads * head_dim]
  mx::array q_norm; // [head_dim] f32
  mx::array k_norm; // [head_dim] f32
};

/** What the layer keeps per sequence. */
kernels::KvFormat kv_format(const GatedAttention& attention, mx::Dtype dtype);

/** x [T, hidden] -> [T, hidden]; K/V of `layer` are appended. */
mx::array run_gated_attention(
    const GatedAttention& attention,
    int layer,
    const mx::array& x,
    const ForwardContext& context);

} // namespace optiq::nn
