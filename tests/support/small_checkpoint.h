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
  const bool is_gemma4 = config["model_type"] == "gemma4_text";
  const bool is_gemma = is_gemma4 || config["model_type"] == "gemma3_text";
  const bool has_head_norms = is_gemma || config["model_type"] == "qwen3";
  add("model.embed_tokens.weight", {kVocab, kHidden});
  add("model.norm.weight", {kHidden});
  for (int i = 0; i < 4; ++i) {
    const std::string p = "model.layers." + std::to_string(i) + ".";
    add(p + "self_attn.q_proj.weight", {64, kHidden});
    add(p + "self_attn.k_proj.weight", {32, kHidden});
    add(p + "self_attn.v_proj.weight", {32, kHidden});
    add(p + "self_attn.o_proj.weight", {kHidden, 64});
    add(p + "mlp.gate_proj.weight", {kInner, kHidden});
    add(p + "mlp.up_proj.weight", {kInner, kHidden});
    add(p + "mlp.down_proj.weight", {kHidden, kInner});
    add(p + "input_layernorm.weight", {kHidden});
    add(p + "post_attention_layernorm.weight", {kHidden});
    if (is_gemma) {
      add(p + "pre_feedforward_layernorm.weight", {kHidden});
      add(p + "post_feedforward_layernorm.weight", {kHidden});
    }
    if (is_gemma4) {
      add(p + "per_layer_input_gate.weight", {kLayerInput, kHidden});
      add(p + "per_layer_projection.weight", {kHidden, kLayerInput});
      add(p + "post_per_layer_input_norm.weight", {kHidden});
      add(p + "layer_scalar", {1});
    }
    if (has_head_norms) {
      add(p + "self_attn.q_norm.weight", {16});
      add(p + "self_attn.k_norm.weight", {16});
    }
  }
  if (is_gemma4) {
    add("model.embed_tokens_per_layer.weight",
        {config["vocab_size_per_layer_input"].get<int>(), 4 * kLayerInput});
    add("model.per_layer_model_projection.weight", {4 * kLayerInput, kHidden});
    add("model.per_layer_projection_norm.weight", {kLayerInput});
  }
  for (const std::string& name : extra) {
    add(name, {kVocab, kHidden});
  }
  io::write_safetensors(folder / "model.safetensors", tensors, {});
  test::write_file(folder / "config.json", config.dump());
}

} // namespace optiq::testing
