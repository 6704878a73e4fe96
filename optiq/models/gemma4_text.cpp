#include <cmath>
#include <initializer_list>
#include <utility>

#include "optiq/artifacts/module_id.h"
#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

using artifacts::Json;

/** The class defaults of transformers and mlx-lm differ for these. */
void require_stated(
    const ConfigReader& config,
    std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    config.require(
        config.json().contains(key),
        ErrorKind::Corrupt,
        std::string(key) + " is missing, expected it or null");
  }
}

/** 0 for null. */
int count_of(const ConfigReader& config, const char* key) {
  return config.find(key) == nullptr ? 0 : config.count(key, kMaxWidth);
}

void refuse_experts(const ConfigReader& config) {
  config.require(
      !config.flag_or("enable_moe_block", false),
      ErrorKind::Unsupported,
      "enable_moe_block true: mixtures of experts are not supported");
}

/** The RoPE of a layer kind; without rope_parameters, that of Gemma 4 E2B. */
RopeConfig parse_kind_rope(
    const ConfigReader& config,
    bool is_sliding,
    int max_positions) {
  const Json* by_kind = config.find("rope_parameters");
  if (by_kind == nullptr) {
    RopeConfig rope{.theta = is_sliding ? 1e4 : 1e6};
    if (!is_sliding) {
      rope.scaling = {
          .kind = nn::RopeScaling::Kind::Proportional, .rotated_share = 0.25};
    }
    return rope;
  }
  const char* name = is_sliding ? "sliding_attention" : "full_attention";
  config.require(
      by_kind->is_object() && by_kind->contains(name) &&
          by_kind->at(name).is_object(),
      ErrorKind::Corrupt,
      std::string("rope_parameters has no object ") + name);
  return parse_rope(
      config.at(by_kind->at(name)),
      {.theta = 1e4, .max_positions = max_positions});
}

/** Layers from the first shared one on read the K/V of the last layer of their
 * kind before it. */
void share_kv(const ConfigReader& config, TransformerConfig& gemma) {
  const auto n_layers = static_cast<int>(gemma.layers.size());
  const int n_shared = count_of(config, "num_kv_shared_layers");
  if (n_shared == 0) {
    return;
  }
  const int first = n_layers - n_shared;
  config.require(
      first > 0,
      ErrorKind::Corrupt,
      "num_kv_shared_layers leaves no layer with K/V of its own");
  require_stated(config, {"use_double_wide_mlp"});
  const bool is_wide = config.flag_or("use_double_wide_mlp", false);
  for (int i = first; i < n_layers; ++i) {
    LayerConfig& layer = gemma.layers[i];
    int source = first - 1;
    while (source >= 0 && gemma.layers[source].window != layer.window) {
      --source;
    }
    config.require(
        source >= 0,
        ErrorKind::Corrupt,
        "layer " + std::to_string(i) +
            " shares K/V, but no layer of its kind has any");
    layer.kv_layer = source;
    if (is_wide) {
      layer.intermediate_size *= 2;
    }
  }
}

/** Gemma 4's text model without experts. */
TransformerConfig parse_gemma4_text_config(const ConfigReader& config) {
  refuse_experts(config);
  require_stated(
      config,
      {"layer_types",
       "head_dim",
       "final_logit_softcapping",
       "hidden_size_per_layer_input",
       "num_kv_shared_layers"});
  TransformerConfig gemma = parse_transformer_sizes(config);
  gemma.model_type = kGemma4Text.model_type;
  gemma.scores.scale = 1.f; // the norms of q and k take its place
  gemma.embedding_scale = std::sqrt(static_cast<float>(gemma.hidden_size));
  gemma.activation = kernels::Activation::GeluTanh;
  gemma.qk_norm = QkNorm::Head;
  gemma.has_v_norm = true;
  gemma.norms = kSandwichNorms;
  gemma.has_layer_scalar = true;
  gemma.logit_softcap = static_cast<float>(
      config.number_above_or(0, "final_logit_softcapping", 0));
  gemma.layer_input_size = count_of(config, "hidden_size_per_layer_input");
  if (gemma.layer_input_size > 0) {
    gemma.layer_input_vocab_size =
        config.bounded("vocab_size_per_layer_input", kMaxVocab);
  }
  refuse_flags(config);
  require_activation(config, "hidden_activation", "gelu_pytorch_tanh");
  const int head_dim = config.bounded("head_dim", kMaxHeadDim);
  const int global_head_dim =
      config.bounded_or("global_head_dim", kMaxHeadDim, head_dim);
  const bool k_is_v = config.flag_or("attention_k_eq_v", false);
  const auto windows =
      parse_windows(config, static_cast<int>(gemma.layers.size()), 0);
  for (std::size_t i = 0; i < windows.size(); ++i) {
    LayerConfig& layer = gemma.layers[i];
    const bool is_sliding = windows[i] > 0;
    layer.window = windows[i];
    layer.rope = parse_kind_rope(config, is_sliding, gemma.max_positions);
    layer.head_dim = is_sliding ? head_dim : global_head_dim;
    layer.v_is_k = k_is_v && !is_sliding;
    if (layer.v_is_k) {
      layer.n_kv_heads = config.bounded_or(
          "num_global_key_value_heads", kMaxHeads, layer.n_kv_heads);
    }
  }
  check_layers(config, gemma);
  share_kv(config, gemma);
  return gemma;
}

bool is_kv_of_shared_layer(const std::string& tensor, int first_shared) {
  using artifacts::ModuleRole;
  const artifacts::ModuleId id = artifacts::module_of(tensor);
  return id.layer >= first_shared &&
      (id.role == ModuleRole::Key || id.role == ModuleRole::Value ||
       id.role == ModuleRole::KeyNorm);
}

/** Checkpoints ship K/V projections of shared layers, which nothing reads, and
 * bounds of activations. */
std::vector<CheckpointTensor> sanitize_gemma4_text(
    const io::ModelDirectory& directory) {
  const ConfigReader config(
      directory.config(),
      "sanitize_gemma4_text",
      (directory.path() / "config.json").string());
  const int first_shared = config.bounded("num_hidden_layers", kMaxLayers) -
      count_of(config, "num_kv_shared_layers");
  std::vector<CheckpointTensor> tensors;
  for (CheckpointTensor& tensor : sanitize_transformer(directory)) {
    const bool is_bound = tensor.name.ends_with(".input_max") ||
        tensor.name.ends_with(".input_min") ||
        tensor.name.ends_with(".output_max") ||
        tensor.name.ends_with(".output_min");
    if (!is_bound && !is_kv_of_shared_layer(tensor.name, first_shared)) {
      tensors.push_back(std::move(tensor));
    }
  }
  return tensors;
}

std::unique_ptr<Model> load_gemma4_text(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_gemma4_text_config", parse_gemma4_text_config);
}

} // namespace

const Family kGemma4Text{"gemma4_text", sanitize_gemma4_text, load_gemma4_text};

} // namespace optiq::models
