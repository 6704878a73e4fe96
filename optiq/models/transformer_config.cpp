#include <cmath>

#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

using artifacts::Json;

void refuse_variants(const ConfigReader& config) {
  for (const char* key : {"attention_bias", "mlp_bias", "rope_traditional"}) {
    config.require(
        !config.flag_or(key, false),
        ErrorKind::Unsupported,
        std::string(key) + " true is not supported, only false");
  }
}

nn::RopeScaling parse_scaling(const ConfigReader& rope) {
  const std::string type = rope.text_or(
      rope.find("type") != nullptr ? "type" : "rope_type", "default");
  using Kind = nn::RopeScaling::Kind;
  if (type == "default") {
    return {};
  }
  if (type == "linear") {
    return {.kind = Kind::Linear, .factor = rope.number_above(0, "factor")};
  }
  if (type == "proportional") {
    const double share = rope.number_above_or(0, "partial_rotary_factor", 1.0);
    rope.require(
        share <= 1,
        ErrorKind::Corrupt,
        "partial_rotary_factor must be at most 1");
    return {
        .kind = Kind::Proportional,
        .factor = rope.number_above_or(0, "factor", 1.0),
        .rotated_share = share};
  }
  rope.require(
      type == "llama3",
      ErrorKind::Unsupported,
      "rope type '" + type +
          "', supported are default, linear, llama3 and proportional");
  nn::RopeScaling scaling{
      .kind = Kind::Llama3, .factor = rope.number_above(0, "factor")};
  scaling.low_freq_factor =
      rope.number_above_or(0, "low_freq_factor", scaling.low_freq_factor);
  scaling.high_freq_factor = rope.number_above_or(
      scaling.low_freq_factor, "high_freq_factor", scaling.high_freq_factor);
  scaling.original_positions = rope.number_above_or(
      0, "original_max_position_embeddings", scaling.original_positions);
  return scaling;
}

} // namespace

TransformerConfig parse_transformer_sizes(const ConfigReader& config) {
  TransformerConfig sizes;
  sizes.vocab_size = config.bounded("vocab_size", kMaxVocab);
  sizes.hidden_size = config.bounded("hidden_size", kMaxWidth);
  sizes.n_heads = config.bounded("num_attention_heads", kMaxHeads);
  const LayerConfig layer{
      .n_kv_heads =
          config.bounded_or("num_key_value_heads", kMaxHeads, sizes.n_heads),
      .head_dim = config.bounded_or(
          "head_dim", kMaxHeadDim, sizes.hidden_size / sizes.n_heads),
      .intermediate_size = config.bounded("intermediate_size", kMaxWidth)};
  sizes.layers.assign(config.bounded("num_hidden_layers", kMaxLayers), layer);
  sizes.max_positions =
      config.bounded("max_position_embeddings", kMaxPositions);
  sizes.norm_eps = static_cast<float>(config.number_above(0, "rms_norm_eps"));
  sizes.score_scale = 1.f / std::sqrt(static_cast<float>(layer.head_dim));
  refuse_variants(config);
  return sizes;
}

void require_activation(
    const ConfigReader& config,
    const char* key,
    const char* expected) {
  const std::string found = config.text_or(key, expected);
  config.require(
      found == expected,
      ErrorKind::Unsupported,
      std::string(key) + " is '" + found + "', supported is " + expected);
}

void check_layers(
    const ConfigReader& config,
    const TransformerConfig& transformer) {
  for (const LayerConfig& layer : transformer.layers) {
    config.require(
        transformer.n_heads % layer.n_kv_heads == 0,
        ErrorKind::Corrupt,
        "num_attention_heads must be a multiple of num_key_value_heads");
    config.require(
        layer.head_dim >= 2 && layer.head_dim % 2 == 0,
        ErrorKind::Unsupported,
        "head_dim " + std::to_string(layer.head_dim) +
            ", expected an even number of at least 2");
  }
}

std::vector<int>
parse_windows(const ConfigReader& config, int n_layers, int fallback) {
  const Json* types = config.find("layer_types");
  if (types == nullptr) {
    return std::vector<int>(n_layers, fallback);
  }
  config.require(
      types->is_array() && types->size() == static_cast<std::size_t>(n_layers),
      ErrorKind::Corrupt,
      "layer_types must be a list of num_hidden_layers names");
  std::vector<int> windows;
  for (const Json& type : *types) {
    const bool is_sliding = type == "sliding_attention";
    config.require(
        is_sliding || type == "full_attention",
        ErrorKind::Unsupported,
        "layer type " + artifacts::describe(type) +
            ", supported are full_attention and sliding_attention");
    windows.push_back(
        is_sliding ? config.bounded("sliding_window", kMaxPositions) : 0);
  }
  return windows;
}

RopeConfig parse_rope(
    const ConfigReader& config,
    std::optional<double> default_theta) {
  const Json* parameters = config.find("rope_parameters");
  const Json* scaling = config.find("rope_scaling");
  for (const Json* part : {parameters, scaling}) {
    config.require(
        part == nullptr || part->is_object(),
        ErrorKind::Corrupt,
        "rope_parameters and rope_scaling must be objects");
  }
  const bool is_nested =
      parameters != nullptr && config.find("rope_theta") == nullptr;
  const ConfigReader theta = is_nested ? config.at(*parameters) : config;
  RopeConfig rope{
      .theta = default_theta
          ? theta.number_above_or(1, "rope_theta", *default_theta)
          : theta.number_above(1, "rope_theta")};
  // Gemma's rope_parameters by layer kind are read as they are.
  const Json* part = scaling != nullptr ? scaling : parameters;
  const ConfigReader reader = part != nullptr ? config.at(*part) : config;
  rope.scaling = parse_scaling(reader);
  for (const ConfigReader* outer : {&config, &reader}) {
    config.require(
        rope.scaling.kind == nn::RopeScaling::Kind::Proportional ||
            outer->number_above_or(0, "partial_rotary_factor", 1.0) == 1.0,
        ErrorKind::Unsupported,
        "partial_rotary_factor other than 1 with this rope type");
  }
  return rope;
}

} // namespace optiq::models
