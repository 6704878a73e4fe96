#pragma once

#include <optional>
#include <vector>

#include "optiq/cache/kv_cache.h"
#include "optiq/kernels/variants.h"
#include "optiq/nn/forward_context.h"
#include "optiq/nn/linear.h"
#include "optiq/nn/rope.h"

namespace optiq::nn {

/** Queries that grow with their position, so that attention stays sharp over
 * long texts (Llama 4): q_p is multiplied by 1 + beta ln(1 + floor(p /
 * period)).
 */
struct QueryGrowth {
  double beta = 0;
  int period = 1;
};

/**
 * Causal grouped-query attention. What families add is data: RoPE of some kind
 * or none, norms on q and k, a sliding window, a cap on scores, an output gate.
 */
struct Attention {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int window = 0; // tokens a query sees, its own included; 0: all before it
  kernels::ScoreRule scores; // its scale is head_dim^-0.5 as a rule
  float norm_eps = 0.f;
  /** Qwen3.5: q_proj gives every head its q, then a gate; the output of the
   * head is multiplied by sigmoid(gate) before o_proj. */
  bool has_output_gate = false;
  std::optional<Rope> rope; // none: attention knows no positions (NoPE)
  std::optional<QueryGrowth> query_growth;
  /** The rows of k_proj and v_proj follow those of q_proj, in one matrix. */
  bool is_fused = false;
  Linear q_proj; // [n_heads * head_dim (twice with a gate), hidden]
  std::optional<Linear> k_proj; // [n_kv_heads * head_dim, hidden]
  /** The same; none beside a k_proj: v is k before norm and RoPE. */
  std::optional<Linear> v_proj;
  int kv_layer = -1; // an earlier one whose K/V are read; -1: its own
  Linear o_proj; // [hidden, n_heads * head_dim]
  /** [head_dim] f32: of every head; [n_heads * head_dim]: of all together. */
  std::optional<mx::array> q_norm;
  std::optional<mx::array> k_norm; // the same with n_kv_heads
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
