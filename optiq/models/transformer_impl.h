#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/models/config_impl.h"
#include "optiq/models/decoder_impl.h"
#include "optiq/models/rope_config_impl.h"

namespace optiq::models {

/** One layer, where layers differ. */
struct LayerConfig {
  int n_kv_heads = 0;
  int head_dim = 0;
  int intermediate_size = 0;
  int window = 0; // tokens that a query sees, its own included; 0: all
  std::optional<RopeConfig> rope; // none: NoPE
  bool v_is_k = false; // before norm and RoPE
  int kv_layer = -1; // whose K/V it reads; -1: its own
};

/** Which projections have a bias. */
struct Biases {
  bool qkv = false;
  bool o = false;
  bool mlp = false; // all of gate, up and down
};

/** What q and k are normalized over, before RoPE. */
enum class QkNorm { None, Head, Row };

/** Names of a layer's norms, before and behind each half; null: none. */
struct NormNames {
  const char* mixer = nullptr;
  const char* mixer_out = nullptr;
  const char* mlp = nullptr;
  const char* mlp_out = nullptr;
};

inline constexpr NormNames kPreNorms{
    .mixer = "input_layernorm",
    .mlp = "post_attention_layernorm"};
/** OLMo's. */
inline constexpr NormNames kPostNorms{
    .mixer_out = "post_attention_layernorm",
    .mlp_out = "post_feedforward_layernorm"};
/** Gemma's: what Llama calls the norm before the MLP is the one behind
 * attention. */
inline constexpr NormNames kSandwichNorms{
    .mixer = "input_layernorm",
    .mixer_out = "post_attention_layernorm",
    .mlp = "pre_feedforward_layernorm",
    .mlp_out = "post_feedforward_layernorm"};

/** A decoder of attention blocks, as data. */
struct TransformerConfig {
  std::string model_type;
  std::string prefix; // of all tensors: "", or "language_model."
  int vocab_size = 0;
  int hidden_size = 0;
  int n_heads = 0;
  int max_positions = 0;
  NormNames norms = kPreNorms;
  float norm_eps = 0.f;
  bool has_layer_norms = false; // LayerNorm, not RMSNorm
  bool has_norm_biases = false;
  bool adds_one_to_norms = false; // the gain is 1 + the stored weight
  QkNorm qk_norm = QkNorm::None;
  bool has_v_norm = false; // per head, without a weight
  Biases biases;
  bool fuses_qkv = false; // qkv_proj: rows of q, then k, then v
  bool fuses_gate_up = false; // gate_up_proj: rows of gate, then up
  kernels::Activation activation = kernels::Activation::Silu;
  kernels::ScoreRule scores;
  std::optional<kernels::QueryGrowth> query_growth;
  bool is_parallel = false; // MLP beside attention, not behind it
  float embedding_scale = 1.f;
  float residual_scale = 1.f; // of what attention and MLP add
  float logit_scale = 1.f;
  float logit_softcap = 0.f; // 0: none
  bool has_layer_scalar = false;
  int layer_input_size = 0; // of Gemma 4's per-layer inputs; 0: none
  int layer_input_vocab_size = 0;
  std::vector<LayerConfig> layers;
};

/** What parse_transformer_sizes leaves to the family. */
struct SizeKeys {
  const char* norm_eps = "rms_norm_eps";
  std::optional<int> max_positions; // without max_position_embeddings
};

/** The sizes that the families name alike; RoPE, windows and what else differs
 * is left to the family. Throws Corrupt. */
TransformerConfig parse_transformer_sizes(
    const ConfigReader& config,
    const SizeKeys& keys = {});

/** Throws Unsupported when `key` names an activation that is not `expected`. */
void require_activation(
    const ConfigReader& config,
    const char* key,
    const char* expected);

/** Throws Unsupported where attention_bias, mlp_bias or rope_traditional is
 * true and not in `allowed`: mlx-lm's model of the family has no such thing. */
void refuse_flags(
    const ConfigReader& config,
    std::initializer_list<const char*> allowed = {});

/** Throws Corrupt or Unsupported for a layer whose heads or RoPE do not fit. */
void check_layers(
    const ConfigReader& config,
    const TransformerConfig& transformer);

/** One entry per layer: sliding_window where layer_types says
 * sliding_attention, else 0; `fallback` for each without layer_types. */
std::vector<int>
parse_windows(const ConfigReader& config, int n_layers, int fallback);

/** What a family's references take where config.json has no such key. */
struct WindowDefaults {
  std::optional<int> pattern; // of sliding_window_pattern
  std::optional<int> window; // of sliding_window
};

/** parse_windows; without layer_types, sliding_window in all layers but every
 * sliding_window_pattern-th. Throws Corrupt for a missing key without default.
 */
std::vector<int> parse_patterned_windows(
    const ConfigReader& config,
    int n_layers,
    const WindowDefaults& defaults);

/** parse_windows for Qwen; without layer_types, where use_sliding_window is
 * true, sliding_window in the layers from max_window_layers on. */
std::vector<int> parse_late_windows(const ConfigReader& config, int n_layers);

/** One RoPE for all layers, and their windows; max_positions becomes what the
 * scaling of RoPE reaches. */
void set_layers(
    TransformerConfig& transformer,
    const RopeConfig& rope,
    const std::vector<int>& windows);

/** Llama 1 to 3.x, and what other families build on. */
TransformerConfig parse_llama_config(const ConfigReader& config);

/** Checkpoint tensors under their own names, which are MLX's; without stored
 * RoPE frequencies, and without the head where it is tied. */
std::vector<CheckpointTensor> sanitize_transformer(
    const io::ModelDirectory& directory);

/** The same for weights under Hugging Face names of a model with towers: their
 * names become "language_model.model.layers...". */
std::vector<CheckpointTensor> sanitize_language_model(
    const io::ModelDirectory& directory);

std::unique_ptr<Model> load_transformer(
    const io::ModelDirectory& directory,
    kernels::Device& device,
    const TransformerConfig& config);

/** load_transformer of what `parse` makes of config.json; `function` begins its
 * messages. */
std::unique_ptr<Model> load_transformer(
    const io::ModelDirectory& directory,
    kernels::Device& device,
    const char* function,
    TransformerConfig (*parse)(const ConfigReader&));

} // namespace optiq::models
