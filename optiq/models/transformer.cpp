#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include <mlx/ops.h>

#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

constexpr const char* kHead = "lm_head";

/** What config.json says of the language model; without a word, whether the
 * head is missing. */
bool is_head_tied(const io::ModelDirectory& directory) {
  const auto& tensors = directory.tensors();
  const bool has_head =
      std::any_of(tensors.begin(), tensors.end(), [](const auto& tensor) {
        return is_head(tensor.name);
      });
  const artifacts::Json& config = directory.config();
  const auto part = config.find("text_config");
  return artifacts::optional_or<bool>(
      part != config.end() && part->is_object() ? *part : config,
      "tie_word_embeddings",
      (directory.path() / "config.json").string(),
      !has_head);
}

mx::array load_gain(
    WeightLoader& weights,
    const TransformerConfig& config,
    const std::string& module,
    int size,
    const WeightLoader::Change& change = {}) {
  return weights.floats(module + ".weight", {size}, [&](const mx::array& x) {
    const mx::array gain =
        config.adds_one_to_norms ? mx::add(x, mx::array(1.f)) : x;
    return change ? change(gain) : gain;
  });
}

/** s * norm(x), s by default 1. */
kernels::Norm load_norm(
    WeightLoader& weights,
    const TransformerConfig& config,
    const std::string& module,
    int size,
    float scale = 1.f) {
  const auto scaled = [=](const mx::array& x) {
    return scale == 1.f ? x : mx::multiply(x, mx::array(scale));
  };
  kernels::Norm norm{
      .weight = load_gain(weights, config, module, size, scaled),
      .eps = config.norm_eps,
      .is_layer_norm = config.has_layer_norms};
  if (config.has_norm_biases) {
    norm.bias = weights.floats(module + ".bias", {size}, scaled);
  }
  return norm;
}

void load_projections(
    WeightLoader& weights,
    const TransformerConfig& config,
    const LayerConfig& layer,
    const std::string& prefix,
    nn::Attention& attention) {
  const int kv_width = layer.n_kv_heads * layer.head_dim;
  const auto linear = [&](const char* name) {
    return weights.linear(
        prefix + name, kv_width, config.hidden_size, config.biases.qkv);
  };
  if (layer.kv_layer >= 0 || config.fuses_qkv) {
    return;
  }
  attention.k_proj = linear("k_proj");
  if (!layer.v_is_k) {
    attention.v_proj = linear("v_proj");
  }
}

nn::Attention load_attention(
    WeightLoader& weights,
    const TransformerConfig& config,
    const LayerConfig& layer,
    const std::string& prefix) {
  const int q_width = config.n_heads * layer.head_dim;
  const int kv_width = layer.n_kv_heads * layer.head_dim;
  const int hidden = config.hidden_size;
  const Biases& biases = config.biases;
  nn::Attention attention{
      .rule =
          {.n_heads = config.n_heads,
           .n_kv_heads = layer.n_kv_heads,
           .head_dim = layer.head_dim,
           .norm_eps = config.norm_eps,
           .query_growth = config.query_growth,
           .scores = config.scores},
      .window = layer.window,
      .is_fused = config.fuses_qkv,
      .q_proj = config.fuses_qkv
          ? weights.linear(
                prefix + "qkv_proj", q_width + 2 * kv_width, hidden, biases.qkv)
          : weights.linear(prefix + "q_proj", q_width, hidden, biases.qkv),
      .kv_layer = layer.kv_layer,
      .o_proj = weights.linear(prefix + "o_proj", hidden, q_width, biases.o)};
  kernels::AttentionRule& rule = attention.rule;
  if (layer.rope) {
    rule.rope = nn::make_rope(
        layer.rope->theta,
        layer.rope->rotary_dim(layer.head_dim),
        layer.rope->scaling,
        layer.rope->is_interleaved);
  }
  load_projections(weights, config, layer, prefix, attention);
  const bool is_of_rows = config.qk_norm == QkNorm::Row;
  const auto gain = [&](const char* name, int width) {
    return load_gain(
        weights, config, prefix + name, is_of_rows ? width : layer.head_dim);
  };
  if (config.qk_norm != QkNorm::None) {
    rule.q_norm = gain("q_norm", q_width);
  }
  if (layer.kv_layer >= 0) {
    return attention;
  }
  if (config.qk_norm != QkNorm::None) {
    rule.k_norm = gain("k_norm", kv_width);
  }
  if (config.has_v_norm) {
    rule.v_norm = weights.upload(mx::ones({layer.head_dim}));
  }
  return attention;
}

nn::Mlp load_glu(
    WeightLoader& weights,
    const TransformerConfig& config,
    const LayerConfig& layer,
    const std::string& prefix) {
  const int hidden = config.hidden_size;
  const int inner = layer.intermediate_size;
  const bool has_bias = config.biases.mlp;
  const auto linear = [&](const char* name, int out, int in) {
    return weights.linear(prefix + name, out, in, has_bias);
  };
  nn::Mlp mlp{
      .activation = config.activation,
      .gate_proj = config.fuses_gate_up
          ? linear("gate_up_proj", 2 * inner, hidden)
          : linear("gate_proj", inner, hidden),
      .down_proj = linear("down_proj", hidden, inner)};
  if (!config.fuses_gate_up) {
    mlp.up_proj = linear("up_proj", inner, hidden);
  }
  return mlp;
}

LayerInput load_layer_input(
    WeightLoader& weights,
    const TransformerConfig& config,
    const std::string& prefix) {
  const int size = config.layer_input_size;
  const int hidden = config.hidden_size;
  return {
      .gate = weights.linear(prefix + "per_layer_input_gate", size, hidden),
      .projection =
          weights.linear(prefix + "per_layer_projection", hidden, size),
      .norm = load_norm(
          weights, config, prefix + "post_per_layer_input_norm", hidden)};
}

LayerInputSource load_layer_input_source(
    WeightLoader& weights,
    const TransformerConfig& config) {
  const int size = config.layer_input_size;
  const int width = size * static_cast<int>(config.layers.size());
  return {
      .embeddings = weights.linear(
          "model.embed_tokens_per_layer", config.layer_input_vocab_size, width),
      .projection = weights.linear(
          "model.per_layer_model_projection", width, config.hidden_size),
      .norm =
          load_norm(weights, config, "model.per_layer_projection_norm", size)};
}

DecoderLayer
load_layer(WeightLoader& weights, const TransformerConfig& config, int index) {
  const LayerConfig& kind = config.layers[index];
  const std::string prefix =
      config.prefix + "model.layers." + std::to_string(index) + ".";
  const auto norm = [&](const char* name) -> std::optional<kernels::Norm> {
    if (name == nullptr) {
      return std::nullopt;
    }
    return load_norm(weights, config, prefix + name, config.hidden_size);
  };
  DecoderLayer layer{
      .mixer_norm = norm(config.norms.mixer),
      .mixer = load_attention(weights, config, kind, prefix + "self_attn."),
      .mixer_out_norm = norm(config.norms.mixer_out),
      .mlp_norm = norm(config.norms.mlp),
      .mlp = load_glu(weights, config, kind, prefix + "mlp."),
      .mlp_out_norm = norm(config.norms.mlp_out),
      .is_parallel = config.is_parallel,
      .residual_scale = config.residual_scale};
  if (config.layer_input_size > 0) {
    layer.input = load_layer_input(weights, config, prefix);
  }
  if (config.has_layer_scalar) {
    layer.scale = weights.number(prefix + "layer_scalar");
  }
  return layer;
}

/** "language_model.model.layers..." of every spelling of a Hugging Face
 * checkpoint with towers. */
std::string language_model_name(const std::string& source) {
  constexpr const char* kPrefix = "language_model.";
  constexpr std::string_view kNested = "model.language_model.";
  if (source.starts_with(kNested)) {
    return kPrefix + ("model." + source.substr(kNested.size()));
  }
  return source.starts_with(kPrefix) ? source : kPrefix + source;
}

bool is_of_tower(const std::string& source) {
  return source.find("vision_tower") != std::string::npos ||
      source.find("multi_modal_projector") != std::string::npos;
}

} // namespace

std::vector<CheckpointTensor> sanitize_transformer(
    const io::ModelDirectory& directory) {
  const bool is_tied = is_head_tied(directory);
  std::vector<CheckpointTensor> tensors;
  for (CheckpointTensor& tensor : list_tensors(directory)) {
    if (tensor.name.ends_with(".rotary_emb.inv_freq") ||
        (is_tied && is_head(tensor.name))) {
      continue;
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::vector<CheckpointTensor> sanitize_language_model(
    const io::ModelDirectory& directory) {
  const bool is_tied = is_head_tied(directory);
  std::vector<CheckpointTensor> tensors;
  for (CheckpointTensor& tensor : list_tensors(directory)) {
    if (is_of_tower(tensor.source)) {
      tensor.role = TensorRole::Tower;
    } else {
      tensor.name = language_model_name(tensor.source);
      if (tensor.name.ends_with(".rotary_emb.inv_freq") ||
          (is_tied && is_head(tensor.name))) {
        continue;
      }
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::unique_ptr<Model> load_transformer(
    const io::ModelDirectory& directory,
    kernels::Device& device,
    const TransformerConfig& config) {
  const Checkpoint checkpoint = open_checkpoint(directory);
  WeightLoader weights(
      directory.config(), checkpoint, directory.path().string(), device);
  const auto n_layers = static_cast<int>(config.layers.size());
  const std::string model = config.prefix + "model.";
  nn::Linear embeddings = weights.linear(
      model + "embed_tokens", config.vocab_size, config.hidden_size);
  std::vector<DecoderLayer> layers;
  layers.reserve(config.layers.size());
  for (int i = 0; i < n_layers; ++i) {
    layers.push_back(load_layer(weights, config, i));
  }
  // The head's logits are scaled where its input is.
  kernels::Norm final_norm = load_norm(
      weights, config, model + "norm", config.hidden_size, config.logit_scale);
  const bool is_tied = is_head_tied(directory);
  std::optional<nn::Linear> head;
  if (!is_tied) {
    head = weights.linear(
        config.prefix + kHead, config.vocab_size, config.hidden_size);
  }
  std::optional<LayerInputSource> layer_inputs;
  if (config.layer_input_size > 0) {
    layer_inputs = load_layer_input_source(weights, config);
  }
  weights.require_all_taken();
  return make_decoder(
      {.device = &device,
       .info =
           {.model_type = config.model_type,
            .vocab_size = config.vocab_size,
            .hidden_size = config.hidden_size,
            .n_layers = n_layers,
            .max_positions = config.max_positions,
            .tied_head = is_tied,
            .parameters = weights.parameters()},
       .embeddings = std::move(embeddings),
       .embedding_scale = config.embedding_scale,
       .layers = std::move(layers),
       .final_norm = std::move(final_norm),
       .head = std::move(head),
       .logit_softcap = config.logit_softcap,
       .layer_inputs = std::move(layer_inputs)});
}

std::unique_ptr<Model> load_transformer(
    const io::ModelDirectory& directory,
    kernels::Device& device,
    const char* function,
    TransformerConfig (*parse)(const ConfigReader&)) {
  const ConfigReader config(
      directory.config(),
      function,
      (directory.path() / "config.json").string());
  return load_transformer(directory, device, parse(config));
}

} // namespace optiq::models
