#include <algorithm>
#include <cmath>
#include <utility>

#include <mlx/ops.h>

#include "optiq/io/array.h"
#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

constexpr const char* kHead = "lm_head";

/** What config.json says; without a word, whether the head is missing. */
bool is_head_tied(const io::ModelDirectory& directory) {
  const auto& tensors = directory.tensors();
  const bool has_head =
      std::any_of(tensors.begin(), tensors.end(), [](const auto& tensor) {
        return tensor.name == std::string(kHead) + ".weight";
      });
  return artifacts::optional_or<bool>(
      directory.config(),
      "tie_word_embeddings",
      (directory.path() / "config.json").string(),
      !has_head);
}

mx::array load_norm(
    WeightLoader& weights,
    const TransformerConfig& config,
    const std::string& module,
    int size) {
  mx::array gain = weights.floats(module + ".weight", {size});
  if (config.adds_one_to_norms) {
    gain = io::materialize(mx::add(gain, mx::array(1.f)));
  }
  return gain;
}

nn::Attention load_attention(
    WeightLoader& weights,
    const TransformerConfig& config,
    const LayerConfig& layer,
    const std::string& prefix) {
  const int q_width = config.n_heads * layer.head_dim;
  const int kv_width = layer.n_kv_heads * layer.head_dim;
  const int hidden = config.hidden_size;
  nn::Attention attention{
      .n_heads = config.n_heads,
      .n_kv_heads = layer.n_kv_heads,
      .head_dim = layer.head_dim,
      .window = layer.window,
      .scale = config.score_scale,
      .norm_eps = config.norm_eps,
      .inverse_frequencies = nn::rope_inverse_frequencies(
          layer.rope.theta, layer.head_dim, layer.rope.scaling),
      .q_proj = weights.linear(prefix + "q_proj", q_width, hidden),
      .kv_layer = layer.kv_layer,
      .o_proj = weights.linear(prefix + "o_proj", hidden, q_width)};
  const auto norm = [&](const char* name) {
    return load_norm(weights, config, prefix + name, layer.head_dim);
  };
  if (config.has_qk_norm) {
    attention.q_norm = norm("q_norm");
  }
  if (layer.kv_layer >= 0) {
    return attention;
  }
  attention.k_proj = weights.linear(prefix + "k_proj", kv_width, hidden);
  if (!layer.v_is_k) {
    attention.v_proj = weights.linear(prefix + "v_proj", kv_width, hidden);
  }
  if (config.has_qk_norm) {
    attention.k_norm = norm("k_norm");
  }
  if (config.has_v_norm) {
    attention.v_norm = io::materialize(mx::ones({layer.head_dim}));
  }
  return attention;
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
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  const auto norm = [&](const char* name) {
    return load_norm(weights, config, prefix + name, config.hidden_size);
  };
  // Gemma calls the norm after attention what Llama calls the one before the
  // MLP.
  DecoderLayer layer{
      .mixer_norm = norm("input_layernorm"),
      .mixer = load_attention(weights, config, kind, prefix + "self_attn."),
      .mlp_norm = norm(
          config.has_output_norms ? "pre_feedforward_layernorm"
                                  : "post_attention_layernorm"),
      .mlp = load_mlp(
          weights,
          prefix + "mlp.",
          config.hidden_size,
          kind.intermediate_size)};
  layer.mlp.activation = config.activation;
  if (config.has_output_norms) {
    layer.mixer_out_norm = norm("post_attention_layernorm");
    layer.mlp_out_norm = norm("post_feedforward_layernorm");
  }
  if (config.layer_input_size > 0) {
    layer.input = load_layer_input(weights, config, prefix);
  }
  if (config.has_layer_scalar) {
    layer.scale =
        io::floats(weights.floats(prefix + "layer_scalar", {1})).front();
  }
  return layer;
}

} // namespace

std::vector<CheckpointTensor> sanitize_transformer(
    const io::ModelDirectory& directory) {
  const bool is_tied = is_head_tied(directory);
  std::vector<CheckpointTensor> tensors;
  for (CheckpointTensor& tensor : list_tensors(directory)) {
    if (tensor.name.ends_with(".rotary_emb.inv_freq") ||
        (is_tied && tensor.name.starts_with(std::string(kHead) + "."))) {
      continue;
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::unique_ptr<Model> load_transformer(
    const io::ModelDirectory& directory,
    const TransformerConfig& config) {
  const Checkpoint checkpoint = open_checkpoint(directory);
  WeightLoader weights(
      directory.config(), checkpoint, directory.path().string());
  const auto n_layers = static_cast<int>(config.layers.size());
  nn::Linear embeddings = weights.linear(
      "model.embed_tokens", config.vocab_size, config.hidden_size);
  std::vector<DecoderLayer> layers;
  for (int i = 0; i < n_layers; ++i) {
    layers.push_back(load_layer(weights, config, i));
  }
  mx::array final_norm =
      load_norm(weights, config, "model.norm", config.hidden_size);
  const bool is_tied = is_head_tied(directory);
  std::optional<nn::Linear> head;
  if (!is_tied) {
    head = weights.linear(kHead, config.vocab_size, config.hidden_size);
  }
  std::optional<LayerInputSource> layer_inputs;
  if (config.layer_input_size > 0) {
    layer_inputs = load_layer_input_source(weights, config);
  }
  weights.require_all_taken();
  return make_decoder(
      {.info =
           {.model_type = config.model_type,
            .vocab_size = config.vocab_size,
            .hidden_size = config.hidden_size,
            .n_layers = n_layers,
            .max_positions = config.max_positions,
            .tied_head = is_tied,
            .parameters = weights.parameters()},
       .norm_eps = config.norm_eps,
       .embeddings = std::move(embeddings),
       .embedding_scale = config.embedding_scale,
       .layers = std::move(layers),
       .final_norm = std::move(final_norm),
       .head = std::move(head),
       .logit_softcap = config.logit_softcap,
       .layer_inputs = std::move(layer_inputs)});
}

} // namespace optiq::models
