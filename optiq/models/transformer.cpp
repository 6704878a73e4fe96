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
    const AttentionKind& kind,
    const std::string& prefix) {
  const int q_width = config.n_heads * config.head_dim;
  const int kv_width = config.n_kv_heads * config.head_dim;
  const int hidden = config.hidden_size;
  nn::Attention attention{
      .n_heads = config.n_heads,
      .n_kv_heads = config.n_kv_heads,
      .head_dim = config.head_dim,
      .window = kind.window,
      .scale = config.score_scale,
      .norm_eps = config.norm_eps,
      .inverse_frequencies = nn::rope_inverse_frequencies(
          kind.rope_theta, config.head_dim, kind.rope_scaling),
      .q_proj = weights.linear(prefix + "q_proj", q_width, hidden),
      .k_proj = weights.linear(prefix + "k_proj", kv_width, hidden),
      .v_proj = weights.linear(prefix + "v_proj", kv_width, hidden),
      .o_proj = weights.linear(prefix + "o_proj", hidden, q_width)};
  if (config.has_qk_norm) {
    attention.q_norm =
        load_norm(weights, config, prefix + "q_norm", config.head_dim);
    attention.k_norm =
        load_norm(weights, config, prefix + "k_norm", config.head_dim);
  }
  return attention;
}

DecoderLayer
load_layer(WeightLoader& weights, const TransformerConfig& config, int index) {
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  const auto norm = [&](const char* name) {
    return load_norm(weights, config, prefix + name, config.hidden_size);
  };
  // Gemma calls the norm after attention what Llama calls the one before the
  // MLP.
  DecoderLayer layer{
      .mixer_norm = norm("input_layernorm"),
      .mixer = load_attention(
          weights, config, config.layers[index], prefix + "self_attn."),
      .mlp_norm = norm(
          config.has_output_norms ? "pre_feedforward_layernorm"
                                  : "post_attention_layernorm"),
      .mlp = load_mlp(
          weights,
          prefix + "mlp.",
          config.hidden_size,
          config.intermediate_size)};
  layer.mlp.activation = config.activation;
  if (config.has_output_norms) {
    layer.mixer_out_norm = norm("post_attention_layernorm");
    layer.mlp_out_norm = norm("post_feedforward_layernorm");
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
       .head = std::move(head)});
}

} // namespace optiq::models
