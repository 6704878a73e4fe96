#include <cmath>

#include "optiq/base/error.h"
#include "optiq/models/qwen3_5_impl.h"

namespace optiq::models {
namespace {

using artifacts::Json;

/** An integer of the configuration within [1, limit]. */
int bounded(
    const Json& config,
    const char* key,
    const std::string& where,
    int limit) {
  const int value = artifacts::required<int>(config, key, where);
  if (value < 1 || value > limit) {
    fail(
        ErrorKind::Corrupt,
        "[parse_qwen3_5_config] {}: {} is {}, expected 1 to {}",
        where,
        key,
        value,
        limit);
  }
  return value;
}

void require(
    bool condition,
    ErrorKind kind,
    const std::string& where,
    const std::string& what) {
  if (!condition) {
    fail(kind, "[parse_qwen3_5_config] {}: {}", where, what);
  }
}

constexpr int kMaxWidth = 1 << 20;
constexpr int kMaxHeads = 1024;
constexpr int kMaxLayers = 1024;
constexpr int kMaxVocab = 1 << 22;

void parse_rope(
    const Json& text,
    const std::string& where,
    Qwen35Config& config) {
  const auto rope = text.find("rope_parameters");
  require(
      rope != text.end() && rope->is_object(),
      ErrorKind::Corrupt,
      where,
      "rope_parameters is missing");
  const auto type = artifacts::optional_or<std::string>(
      *rope,
      rope->contains("rope_type") ? "rope_type" : "type",
      where,
      "default");
  require(
      type == "default" || type == "mrope",
      ErrorKind::Unsupported,
      where,
      "rope_type '" + type + "', supported are default and mrope");
  config.rope_theta = artifacts::required<double>(*rope, "rope_theta", where);
  require(
      std::isfinite(config.rope_theta) && config.rope_theta > 1,
      ErrorKind::Corrupt,
      where,
      "rope_theta must be a finite number above 1");
  const auto factor = artifacts::optional_or<double>(
      *rope, "partial_rotary_factor", where, 0.25);
  require(
      factor > 0 && factor <= 1,
      ErrorKind::Corrupt,
      where,
      "partial_rotary_factor must be above 0 and at most 1");
  config.rotary_dim = static_cast<int>(config.head_dim * factor);
  require(
      config.rotary_dim >= 2 && config.rotary_dim % 2 == 0,
      ErrorKind::Unsupported,
      where,
      "head_dim * partial_rotary_factor must be even and at least 2");
}

void parse_delta_net(
    const Json& text,
    const std::string& where,
    Qwen35Config& config) {
  kernels::DeltaNetShape& shape = config.delta_net;
  shape.n_key_heads = bounded(text, "linear_num_key_heads", where, kMaxHeads);
  shape.n_value_heads =
      bounded(text, "linear_num_value_heads", where, kMaxHeads);
  shape.key_dim = bounded(text, "linear_key_head_dim", where, 4096);
  shape.value_dim = bounded(text, "linear_value_head_dim", where, 4096);
  shape.conv_kernel = bounded(text, "linear_conv_kernel_dim", where, 8);
  require(
      shape.n_value_heads % shape.n_key_heads == 0,
      ErrorKind::Corrupt,
      where,
      "linear_num_value_heads must be a multiple of linear_num_key_heads");
  require(
      shape.conv_kernel >= 2,
      ErrorKind::Unsupported,
      where,
      "linear_conv_kernel_dim 1");
}

/** mlx-lm derives the layer kinds from the interval and ignores layer_types; a
 * list that says otherwise would run as two different models. */
void check_layer_types(
    const Json& text,
    const std::string& where,
    const Qwen35Config& config) {
  const auto types = text.find("layer_types");
  if (types == text.end() || types->is_null()) {
    return;
  }
  bool fits = types->is_array() &&
      types->size() == static_cast<std::size_t>(config.n_layers);
  for (int i = 0; fits && i < config.n_layers; ++i) {
    fits = (*types)[i] ==
        (config.is_linear(i) ? "linear_attention" : "full_attention");
  }
  require(
      fits,
      ErrorKind::Unsupported,
      where,
      "layer_types disagrees with full_attention_interval " +
          std::to_string(config.full_attention_interval));
}

} // namespace

Qwen35Config parse_qwen3_5_config(
    const Json& config_json,
    const std::string& where) {
  const auto nested = config_json.find("text_config");
  const Json& text = nested != config_json.end() && nested->is_object()
      ? *nested
      : config_json;
  Qwen35Config config;
  config.vocab_size = bounded(text, "vocab_size", where, kMaxVocab);
  config.hidden_size = bounded(text, "hidden_size", where, kMaxWidth);
  config.intermediate_size =
      bounded(text, "intermediate_size", where, kMaxWidth);
  config.n_layers = bounded(text, "num_hidden_layers", where, kMaxLayers);
  config.n_heads = bounded(text, "num_attention_heads", where, kMaxHeads);
  config.n_kv_heads = bounded(text, "num_key_value_heads", where, kMaxHeads);
  config.head_dim = bounded(text, "head_dim", where, 1024);
  config.max_positions =
      bounded(text, "max_position_embeddings", where, 1 << 30);
  if (text.contains("full_attention_interval")) {
    config.full_attention_interval =
        bounded(text, "full_attention_interval", where, kMaxLayers);
  }
  config.norm_eps = static_cast<float>(
      artifacts::optional_or<double>(text, "rms_norm_eps", where, 1e-6));
  const bool outer_tie = artifacts::optional_or<bool>(
      config_json, "tie_word_embeddings", where, false);
  config.tied_head = artifacts::optional_or<bool>(
      text, "tie_word_embeddings", where, outer_tie);
  require(
      config.n_heads % config.n_kv_heads == 0,
      ErrorKind::Corrupt,
      where,
      "num_attention_heads must be a multiple of num_key_value_heads");
  require(
      !artifacts::optional_or<bool>(text, "attention_bias", where, false),
      ErrorKind::Unsupported,
      where,
      "attention_bias true: no published model of this family has it");
  parse_rope(text, where, config);
  parse_delta_net(text, where, config);
  check_layer_types(text, where, config);
  return config;
}

} // namespace optiq::models
