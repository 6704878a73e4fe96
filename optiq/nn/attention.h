#pragma once

#include <optional>
#include <vector>

#include "optiq/cache/kv_cache.h"
#include "optiq/nn/forward_context.h"
#include "optiq/nn/linear.h"

namespace optiq::nn {

/**
 * Causal grouped-query attention with RoPE. What families add is data: a norm
 * per head on q and k, a sliding window, an output gate.
 */
struct Attention {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int window = 0; // tokens a query sees, its own included; 0: all before it
  float scale = 0.f; // of the scores, head_dim^-0.5 as a rule
  float norm_eps = 0.f;
  /** Qwen3.5: q_proj gives every head its q, then a gate; the output of the
   * head is multiplied by sigmoid(gate) before o_proj. */
  bool has_output_gate = false;
  std::vector<float> inverse_frequencies; // [rotary_dim / 2]
  Linear q_proj; // [n_heads * head_dim (twice with a gate), hidden]
  /** [n_kv_heads * head_dim, hidden]; none: K/V are those of kv_layer. */
  std::optional<Linear> k_proj;
  /** The same; none beside a k_proj: v is k before norm and RoPE. */
  std::optional<Linear> v_proj;
  int kv_layer = -1; // an earlier one, where there is no k_proj
  Linear o_proj; // [hidden, n_heads * head_dim]
  std::optional<mx::array> q_norm; // [head_dim] f32
  std::optional<mx::array> k_norm; // [head_dim] f32
  std::optional<mx::array> v_norm; // [head_dim] f32
};

/** What the layer keeps per sequence. */
cache::LayerFormat kv_format(const Attention& attention, mx::Dtype dtype);

/** [T, hidden] -> [T, hidden]; K/V of `layer` are appended where it has any of
 * its own. */
mx::array run_attention(
    const Attention& attention,
    int layer,
    const BlockInput& input,
    const ForwardContext& context);

} // namespace optiq::nn
