#include <cmath>
#include <string>
#include <utility>

#include <mlx/ops.h>

#include "optiq/models/decoder_impl.h"
#include "optiq/models/families_impl.h"
#include "optiq/models/qwen3_5_impl.h"
#include "optiq/nn/rope.h"

namespace optiq::models {
namespace {

kernels::Norm load_norm(
    WeightLoader& weights,
    const Qwen35Config& config,
    const std::string& module) {
  return {
      .weight = weights.floats(module + ".weight", {config.hidden_size}),
      .eps = config.norm_eps};
}

nn::Mlp load_mlp(
    WeightLoader& weights,
    const Qwen35Config& config,
    const std::string& prefix) {
  const int hidden = config.hidden_size;
  const int inner = config.intermediate_size;
  return {
      .gate_proj = weights.linear(prefix + "gate_proj", inner, hidden),
      .up_proj = weights.linear(prefix + "up_proj", inner, hidden),
      .down_proj = weights.linear(prefix + "down_proj", hidden, inner)};
}

nn::GatedDeltaNet load_delta_net(
    WeightLoader& weights,
    const Qwen35Config& config,
    const std::string& prefix) {
  const kernels::DeltaNetShape& shape = config.delta_net;
  const int value_width = shape.n_value_heads * shape.value_dim;
  const auto linear = [&](const char* name, int out, int in) {
    return weights.linear(prefix + name, out, in);
  };
  const mx::array conv = weights.floats(
      prefix + "conv1d.weight",
      {shape.qkv_dim(), shape.conv_kernel, 1},
      [](const mx::array& x) { return mx::squeeze(x, 2); });
  return {
      .shape = shape,
      .weights =
          {.conv = conv,
           .a_log = weights.floats(prefix + "A_log", {shape.n_value_heads}),
           .dt_bias = weights.floats(prefix + "dt_bias", {shape.n_value_heads}),
           .norm = weights.floats(prefix + "norm.weight", {shape.value_dim}),
           .norm_eps = config.norm_eps},
      .in_proj_qkv = linear("in_proj_qkv", shape.qkv_dim(), config.hidden_size),
      .in_proj_z = linear("in_proj_z", value_width, config.hidden_size),
      .in_proj_b = linear("in_proj_b", shape.n_value_heads, config.hidden_size),
      .in_proj_a = linear("in_proj_a", shape.n_value_heads, config.hidden_size),
      .out_proj = linear("out_proj", config.hidden_size, value_width)};
}

nn::Attention load_attention(
    WeightLoader& weights,
    const Qwen35Config& config,
    const std::string& prefix) {
  const int q_width = config.n_heads * config.head_dim;
  const int kv_width = config.n_kv_heads * config.head_dim;
  const auto linear = [&](const char* name, int out, int in) {
    return weights.linear(prefix + name, out, in);
  };
  return {
      .rule =
          {.n_heads = config.n_heads,
           .n_kv_heads = config.n_kv_heads,
           .head_dim = config.head_dim,
           .has_output_gate = true,
           .q_norm =
               weights.floats(prefix + "q_norm.weight", {config.head_dim}),
           .k_norm =
               weights.floats(prefix + "k_norm.weight", {config.head_dim}),
           .norm_eps = config.norm_eps,
           .rope = nn::make_rope(config.rope_theta, config.rotary_dim),
           .scores =
               {.scale = 1.f / std::sqrt(static_cast<float>(config.head_dim))}},
      .q_proj = linear("q_proj", 2 * q_width, config.hidden_size),
      .k_proj = linear("k_proj", kv_width, config.hidden_size),
      .v_proj = linear("v_proj", kv_width, config.hidden_size),
      .o_proj = linear("o_proj", config.hidden_size, q_width)};
}

DecoderLayer
load_layer(WeightLoader& weights, const Qwen35Config& config, int index) {
  const std::string prefix =
      "language_model.model.layers." + std::to_string(index) + ".";
  const auto load_mixer = [&]() -> decltype(DecoderLayer::mixer) {
    if (config.is_linear(index)) {
      return load_delta_net(weights, config, prefix + "linear_attn.");
    }
    return load_attention(weights, config, prefix + "self_attn.");
  };
  const auto norm = [&](const char* name) {
    return load_norm(weights, config, prefix + name);
  };
  return {
      .mixer_norm = norm("input_layernorm"),
      .mixer = load_mixer(),
      .mlp_norm = norm("post_attention_layernorm"),
      .mlp = load_mlp(weights, config, prefix + "mlp.")};
}

std::unique_ptr<Model> load_qwen3_5(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  const std::string where = (directory.path() / "config.json").string();
  const Qwen35Config config = parse_qwen3_5_config(directory.config(), where);
  const Checkpoint checkpoint = open_checkpoint(directory);
  WeightLoader weights(
      directory.config(), checkpoint, directory.path().string(), device);
  nn::Linear embeddings = weights.linear(
      "language_model.model.embed_tokens",
      config.vocab_size,
      config.hidden_size);
  std::vector<DecoderLayer> layers;
  layers.reserve(static_cast<std::size_t>(config.n_layers));
  for (int i = 0; i < config.n_layers; ++i) {
    layers.push_back(load_layer(weights, config, i));
  }
  kernels::Norm final_norm =
      load_norm(weights, config, "language_model.model.norm");
  std::optional<nn::Linear> head;
  if (!config.tied_head) {
    head = weights.linear(
        "language_model.lm_head", config.vocab_size, config.hidden_size);
  }
  weights.require_all_taken();
  return make_decoder(
      {.device = &device,
       .info =
           {.model_type = kQwen35.model_type,
            .vocab_size = config.vocab_size,
            .hidden_size = config.hidden_size,
            .n_layers = config.n_layers,
            .max_positions = config.max_positions,
            .tied_head = config.tied_head,
            .parameters = weights.parameters()},
       .embeddings = std::move(embeddings),
       .layers = std::move(layers),
       .final_norm = std::move(final_norm),
       .head = std::move(head)});
}

} // namespace

const Family kQwen35{"qwen3_5", sanitize_qwen3_5, load_qwen3_5};

} // namespace optiq::models
