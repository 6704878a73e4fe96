#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/models/config_impl.h"
#include "optiq/models/decoder_impl.h"
#include "optiq/nn/rope.h"

namespace optiq::models {

struct RopeConfig {
  double theta = 0;
  nn::RopeScaling scaling;
};

/** One layer, where layers differ. */
struct LayerConfig {
  int n_kv_heads = 0;
  int head_dim = 0;
  int intermediate_size = 0;
  int window = 0; // tokens that a query sees, its own included; 0: all
  RopeConfig rope;
  bool v_is_k = false; // before norm and RoPE
  int kv_layer = -1; // whose K/V it reads; -1: its own
};

/** A decoder of attention blocks, as data. */
struct TransformerConfig {
  std::string model_type;
  int vocab_size = 0;
  int hidden_size = 0;
  int n_heads = 0;
  int max_positions = 0;
  float norm_eps = 0.f;
  float score_scale = 0.f;
  float embedding_scale = 1.f;
  kernels::Activation activation = kernels::Activation::Silu;
  bool has_qk_norm = false; // per head, before RoPE
  bool has_v_norm = false; // per head, without a weight
  bool has_output_norms = false; // of attention and MLP, as Gemma's
  bool adds_one_to_norms = false; // the gain is 1 + the stored weight
  bool has_layer_scalar = false;
  float logit_softcap = 0.f; // 0: none
  int layer_input_size = 0; // of Gemma 4's per-layer inputs; 0: none
  int layer_input_vocab_size = 0;
  std::vector<LayerConfig> layers;
};

/** The sizes that the families name alike; RoPE, windows and what else differs
 * is left to the family. Throws Corrupt, Unsupported. */
TransformerConfig parse_transformer_sizes(const ConfigReader& config);

/** Throws Unsupported when `key` names an activation that is not `expected`. */
void require_activation(
    const ConfigReader& config,
    const char* key,
    const char* expected);

/** Throws Corrupt or Unsupported for a layer whose heads do not fit. */
void check_layers(
    const ConfigReader& config,
    const TransformerConfig& transformer);

/** One entry per layer: sliding_window where layer_types says
 * sliding_attention, else 0; `fallback` for each without layer_types. */
std::vector<int>
parse_windows(const ConfigReader& config, int n_layers, int fallback);

/** rope_theta with rope_scaling, or rope_parameters, or these keys themselves.
 * Types default, linear, llama3 and proportional; others are Unsupported. */
RopeConfig parse_rope(
    const ConfigReader& config,
    std::optional<double> default_theta);

/** Checkpoint tensors under their own names, which are MLX's; without stored
 * RoPE frequencies, and without the head where it is tied. */
std::vector<CheckpointTensor> sanitize_transformer(
    const io::ModelDirectory& directory);

std::unique_ptr<Model> load_transformer(
    const io::ModelDirectory& directory,
    const TransformerConfig& config);

} // namespace optiq::models
