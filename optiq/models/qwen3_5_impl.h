#pragma once

#include <string>
#include <vector>

#include "optiq/kernels/delta_net.h"
#include "optiq/models/checkpoint.h"

namespace optiq::models {

/** The keys of a Qwen3.5 text configuration that the forward needs. */
struct Qwen35Config {
  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int n_layers = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int rotary_dim = 0;
  int full_attention_interval = 4;
  int max_positions = 0;
  double rope_theta = 0;
  float norm_eps = 0.f;
  bool tied_head = false;
  kernels::DeltaNetShape delta_net;

  bool is_linear(int layer) const {
    return (layer + 1) % full_attention_interval != 0;
  }
};

/** From config.json, flat or with a text_config. Every number is checked
 * against a sane range. Throws Corrupt, Unsupported. */
Qwen35Config parse_qwen3_5_config(
    const artifacts::Json& config,
    const std::string& where);

/** Qwen3.5 names and shapes to MLX's (docs/formats.md, "Weight names"). */
std::vector<CheckpointTensor> sanitize_qwen3_5(
    const io::ModelDirectory& directory);

} // namespace optiq::models
