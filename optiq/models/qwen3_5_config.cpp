#include "optiq/models/config_impl.h"
#include "optiq/models/qwen3_5_impl.h"

namespace optiq::models {
namespace {

using artifacts::Json;

void parse_rope(const ConfigReader& text, Qwen35Config& config) {
  const Json* parameters = text.find("rope_parameters");
  text.require(
      parameters != nullptr && parameters->is_object(),
      ErrorKind::Corrupt,
      "rope_parameters is missing");
  const ConfigReader rope = text.at(*parameters);
  const auto type = rope.text_or(
      parameters->contains("rope_type") ? "rope_type" : "type", "default");
  rope.require(
      type == "default" || type == "mrope",
      ErrorKind::Unsupported,
      "rope_type '" + type + "', supported are default and mrope");
  config.rope_theta = rope.number_above(1, "rope_theta");
  const double factor = rope.number_above_or(0, "partial_rotary_factor", 0.25);
  rope.require(
      factor <= 1,
      ErrorKind::Corrupt,
      "partial_rotary_factor must be above 0 and at most 1");
  config.rotary_dim = static_cast<int>(config.head_dim * factor);
  rope.require(
      config.rotary_dim >= 2 && config.rotary_dim % 2 == 0,
      ErrorKind::Unsupported,
      "head_dim * partial_rotary_factor must be even and at least 2");
}

void parse_delta_net(const ConfigReader& text, Qwen35Config& config) {
  kernels::DeltaNetShape& shape = config.delta_net;
  shape.n_key_heads = text.bounded("linear_num_key_heads", kMaxHeads);
  shape.n_value_heads = text.bounded("linear_num_value_heads", kMaxHeads);
  shape.key_dim = text.bounded("linear_key_head_dim", 4096);
  shape.value_dim = text.bounded("linear_value_head_dim", 4096);
  shape.conv_kernel = text.bounded("linear_conv_kernel_dim", 8);
  text.require(
      shape.n_value_heads % shape.n_key_heads == 0,
      ErrorKind::Corrupt,
      "linear_num_value_heads must be a multiple of linear_num_key_heads");
  text.require(
      shape.conv_kernel >= 2,
      ErrorKind::Unsupported,
      "linear_conv_kernel_dim 1");
}

/** mlx-lm derives the layer kinds from the interval and ignores layer_types; a
 * list that says otherwise would run as two different models. */
void check_layer_types(const ConfigReader& text, const Qwen35Config& config) {
  const Json* types = text.find("layer_types");
  if (types == nullptr) {
    return;
  }
  bool fits = types->is_array() &&
      types->size() == static_cast<std::size_t>(config.n_layers);
  for (int i = 0; fits && i < config.n_layers; ++i) {
    fits = (*types)[i] ==
        (config.is_linear(i) ? "linear_attention" : "full_attention");
  }
  text.require(
      fits,
      ErrorKind::Unsupported,
      "layer_types disagrees with full_attention_interval " +
          std::to_string(config.full_attention_interval));
}

} // namespace

Qwen35Config parse_qwen3_5_config(
    const Json& config_json,
    const std::string& where) {
  const ConfigReader outer(config_json, "parse_qwen3_5_config", where);
  const Json* nested = outer.find("text_config");
  const ConfigReader text =
      nested != nullptr && nested->is_object() ? outer.at(*nested) : outer;
  Qwen35Config config;
  config.vocab_size = text.bounded("vocab_size", kMaxVocab);
  config.hidden_size = text.bounded("hidden_size", kMaxWidth);
  config.intermediate_size = text.bounded("intermediate_size", kMaxWidth);
  config.n_layers = text.bounded("num_hidden_layers", kMaxLayers);
  config.n_heads = text.bounded("num_attention_heads", kMaxHeads);
  config.n_kv_heads = text.bounded("num_key_value_heads", kMaxHeads);
  config.head_dim = text.bounded("head_dim", kMaxHeadDim);
  config.max_positions = text.bounded("max_position_embeddings", kMaxPositions);
  config.full_attention_interval = text.bounded_or(
      "full_attention_interval", kMaxLayers, config.full_attention_interval);
  config.norm_eps =
      static_cast<float>(text.number_above_or(0, "rms_norm_eps", 1e-6));
  config.tied_head = text.flag_or(
      "tie_word_embeddings", outer.flag_or("tie_word_embeddings", false));
  text.require(
      config.n_heads % config.n_kv_heads == 0,
      ErrorKind::Corrupt,
      "num_attention_heads must be a multiple of num_key_value_heads");
  text.require(
      !text.flag_or("attention_bias", false),
      ErrorKind::Unsupported,
      "attention_bias true: no published model of this family has it");
  parse_rope(text, config);
  parse_delta_net(text, config);
  check_layer_types(text, config);
  return config;
}

} // namespace optiq::models
