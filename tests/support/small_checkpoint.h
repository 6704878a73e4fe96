#pragma once

#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "support/scratch_folder.h"

#include "optiq/artifacts/json.h"
#include "optiq/io/array.h"
#include "optiq/io/safetensors.h"

/** Model directories of the transformer families, small, at random weights. */
namespace optiq::testing {

namespace mx = mlx::core;
using artifacts::Json;

inline constexpr int kVocab = 97;
inline constexpr int kHidden = 32;
inline constexpr int kInner = 48;
inline constexpr int kLayerInput = 8;

inline Json sizes(const char* model_type) {
  return {
      {"model_type", model_type},
      {"vocab_size", kVocab},
      {"hidden_size", kHidden},
      {"intermediate_size", kInner},
      {"num_hidden_layers", 4},
      {"num_attention_heads", 4},
      {"num_key_value_heads", 2},
      {"head_dim", 16},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", 1e4},
      {"max_position_embeddings", 4096},
      {"tie_word_embeddings", true}};
}

inline Json gemma(int window) {
  Json config = sizes("gemma3_text");
  config["query_pre_attn_scalar"] = 16;
  config["sliding_window"] = window;
  config["sliding_window_pattern"] = 2;
  return config;
}

/** Layers 2 and 3 read the K/V of layers 0 and 1. */
inline Json gemma4() {
  Json config = sizes("gemma4_text");
  config["layer_types"] = {
      "sliding_attention",
      "full_attention",
      "sliding_attention",
      "full_attention"};
  config["sliding_window"] = 40;
  config["num_kv_shared_layers"] = 2;
  config["use_double_wide_mlp"] = false;
  config["hidden_size_per_layer_input"] = kLayerInput;
  config["vocab_size_per_layer_input"] = kVocab;
  config["final_logit_softcapping"] = 30.0;
  return config;
}

inline constexpr const char* kDenseFamilies[] = {
    "qwen2",
    "phi3",
    "smollm3",
    "granite",
    "olmo2",
    "olmo3",
    "gemma2",
    "glm4",
    "cohere2",
    "ministral3"};

/** A configuration of one of these, or the sizes alone. */
inline Json dense(const std::string& model_type) {
  Json config = sizes(model_type.c_str());
  if (model_type == "phi3") {
    config["partial_rotary_factor"] = 0.5;
  } else if (model_type == "gemma2") {
    config["query_pre_attn_scalar"] = 16;
    config["sliding_window"] = 65;
  } else if (model_type == "olmo3") {
    config["sliding_window"] = 65;
  } else if (model_type == "granite") {
    config["attention_multiplier"] = 0.2;
    config["embedding_multiplier"] = 3.0;
    config["residual_multiplier"] = 0.5;
    config["logits_scaling"] = 2.0;
  } else if (model_type == "glm4") {
    config["attention_bias"] = true;
  } else if (model_type == "cohere2") {
    config["layer_norm_eps"] = 1e-5;
    config["logit_scale"] = 0.5;
    config["sliding_window"] = 65;
  } else if (model_type == "ministral3") {
    config.erase("rope_theta");
    config["rope_parameters"] = {
        {"rope_type", "yarn"},
        {"rope_theta", 1e4},
        {"factor", 4.0},
        {"original_max_position_embeddings", 50},
        {"llama_4_scaling_beta", 0.1}};
  }
  return config;
}

/** Which tensors a layer has. */
struct LayerTensors {
  std::vector<std::string> norms{"input_layernorm", "post_attention_layernorm"};
  bool has_head_norms = false;
  bool has_row_norms = false; // of q and k
  bool has_qkv_biases = false;
  bool fuses_qkv = false;
  bool fuses_gate_up = false;
  bool has_layer_inputs = false; // and a scalar: Gemma 4
};

inline LayerTensors layer_tensors(const Json& config) {
  const std::string type = config["model_type"];
  LayerTensors layer{
      .has_head_norms = type == "qwen3" || type.starts_with("gemma3") ||
          type.starts_with("gemma4"),
      .has_row_norms = type.starts_with("olmo"),
      .has_qkv_biases =
          type == "qwen2" || config.value("attention_bias", false),
      .fuses_qkv = type == "phi3",
      .fuses_gate_up = type == "phi3" || type == "glm4",
      .has_layer_inputs = type == "gemma4_text"};
  if (type.starts_with("gemma")) {
    layer.norms.emplace_back("pre_feedforward_layernorm");
    layer.norms.emplace_back("post_feedforward_layernorm");
  } else if (type.starts_with("olmo")) {
    layer.norms = {"post_attention_layernorm", "post_feedforward_layernorm"};
  } else if (type == "glm4") {
    layer.norms.emplace_back("post_self_attn_layernorm");
    layer.norms.emplace_back("post_mlp_layernorm");
  } else if (type == "cohere2") {
    layer.norms = {"input_layernorm"};
  }
  return layer;
}

inline io::TensorToWrite
random_tensor(const std::string& name, mx::Shape shape, std::mt19937& random) {
  mx::array values = io::make_array(shape, mx::float32);
  std::normal_distribution<float> normal(
      0.f, 1.f / std::sqrt(static_cast<float>(shape.back())));
  for (float& value : io::mutable_floats(values)) {
    value = normal(random);
  }
  return {.name = name, .dtype = mx::float32, .shape = shape, .make = [values] {
            return values;
          }};
}

/** A model directory of the sizes above, with what `extra` names added. */
inline void write_model(
    const std::filesystem::path& folder,
    const Json& config,
    const std::vector<std::string>& extra = {}) {
  std::mt19937 random(3);
  std::vector<io::TensorToWrite> tensors;
  const auto add = [&](const std::string& name, mx::Shape shape) {
    tensors.push_back(random_tensor(name, std::move(shape), random));
  };
  const LayerTensors layer = layer_tensors(config);
  const auto add_linear = [&](const std::string& name, int out, int in) {
    add(name + ".weight", {out, in});
  };
  const auto add_projection = [&](const std::string& name, int out) {
    add_linear(name, out, kHidden);
    if (layer.has_qkv_biases) {
      add(name + ".bias", {out});
    }
  };
  add("model.embed_tokens.weight", {kVocab, kHidden});
  add("model.norm.weight", {kHidden});
  for (int i = 0; i < 4; ++i) {
    const std::string p = "model.layers." + std::to_string(i) + ".";
    if (layer.fuses_qkv) {
      add_projection(p + "self_attn.qkv_proj", 64 + 2 * 32);
    } else {
      add_projection(p + "self_attn.q_proj", 64);
      add_projection(p + "self_attn.k_proj", 32);
      add_projection(p + "self_attn.v_proj", 32);
    }
    add_linear(p + "self_attn.o_proj", kHidden, 64);
    if (layer.fuses_gate_up) {
      add_linear(p + "mlp.gate_up_proj", 2 * kInner, kHidden);
    } else {
      add_linear(p + "mlp.gate_proj", kInner, kHidden);
      add_linear(p + "mlp.up_proj", kInner, kHidden);
    }
    add_linear(p + "mlp.down_proj", kHidden, kInner);
    for (const std::string& norm : layer.norms) {
      add(p + norm + ".weight", {kHidden});
    }
    if (layer.has_layer_inputs) {
      add_linear(p + "per_layer_input_gate", kLayerInput, kHidden);
      add_linear(p + "per_layer_projection", kHidden, kLayerInput);
      add(p + "post_per_layer_input_norm.weight", {kHidden});
      add(p + "layer_scalar", {1});
    }
    if (layer.has_head_norms || layer.has_row_norms) {
      add(p + "self_attn.q_norm.weight", {layer.has_row_norms ? 64 : 16});
      add(p + "self_attn.k_norm.weight", {layer.has_row_norms ? 32 : 16});
    }
  }
  if (layer.has_layer_inputs) {
    add_linear(
        "model.embed_tokens_per_layer",
        config["vocab_size_per_layer_input"].get<int>(),
        4 * kLayerInput);
    add_linear("model.per_layer_model_projection", 4 * kLayerInput, kHidden);
    add("model.per_layer_projection_norm.weight", {kLayerInput});
  }
  for (const std::string& name : extra) {
    add(name, {kVocab, kHidden});
  }
  io::write_safetensors(folder / "model.safetensors", tensors, {});
  test::write_file(folder / "config.json", config.dump());
}

} // namespace optiq::testing
