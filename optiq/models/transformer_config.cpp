#include <algorithm>
#include <cmath>

#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

using artifacts::Json;

int window_of(
    const ConfigReader& config,
    std::optional<int> fallback = std::nullopt) {
  constexpr const char* kKey = "sliding_window";
  return fallback && !config.json().contains(kKey)
      ? *fallback
      : config.bounded(kKey, kMaxPositions);
}

void check_rope(const ConfigReader& config, const LayerConfig& layer) {
  if (!layer.rope) {
    return;
  }
  const int rotary_dim = layer.rope->rotary_dim(layer.head_dim);
  config.require(
      rotary_dim >= 2 && rotary_dim % 2 == 0,
      ErrorKind::Unsupported,
      "RoPE of " + std::to_string(rotary_dim) +
          " channels of a head, expected an even number of at least 2");
  const nn::RopeScaling& scaling = layer.rope->scaling;
  using Kind = nn::RopeScaling::Kind;
  const std::size_t n_divisors = scaling.divisors.size();
  config.require(
      scaling.kind != Kind::LongRope ||
          2 * n_divisors == static_cast<std::size_t>(rotary_dim),
      ErrorKind::Corrupt,
      "long_factor has " + std::to_string(n_divisors) +
          " numbers, expected one for each two of the " +
          std::to_string(rotary_dim) + " channels that turn");
  config.require(
      scaling.kind != Kind::Dynamic || rotary_dim > 2,
      ErrorKind::Unsupported,
      "dynamic RoPE of 2 channels, expected more");
}

} // namespace

TransformerConfig parse_transformer_sizes(
    const ConfigReader& config,
    const SizeKeys& keys) {
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
  constexpr const char* kPositions = "max_position_embeddings";
  sizes.max_positions = keys.max_positions
      ? config.bounded_or(kPositions, kMaxPositions, *keys.max_positions)
      : config.bounded(kPositions, kMaxPositions);
  sizes.norm_eps = static_cast<float>(config.number_above(0, keys.norm_eps));
  sizes.scores.scale = 1.f / std::sqrt(static_cast<float>(layer.head_dim));
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

void refuse_flags(
    const ConfigReader& config,
    std::initializer_list<const char*> allowed) {
  for (const std::string key :
       {"attention_bias", "mlp_bias", "rope_traditional"}) {
    const bool is_allowed =
        std::find(allowed.begin(), allowed.end(), key) != allowed.end();
    config.require(
        is_allowed || !config.flag_or(key.c_str(), false),
        ErrorKind::Unsupported,
        key + " true: models of this family have none");
  }
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
    check_rope(config, layer);
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
    windows.push_back(is_sliding ? window_of(config) : 0);
  }
  return windows;
}

std::vector<int> parse_patterned_windows(
    const ConfigReader& config,
    int n_layers,
    const WindowDefaults& defaults) {
  if (config.find("layer_types") != nullptr) {
    return parse_windows(config, n_layers, 0);
  }
  constexpr const char* kPattern = "sliding_window_pattern";
  const int pattern = defaults.pattern
      ? config.bounded_or(kPattern, kMaxLayers, *defaults.pattern)
      : config.bounded(kPattern, kMaxLayers);
  std::vector<int> windows(n_layers, window_of(config, defaults.window));
  for (int i = pattern - 1; i < n_layers; i += pattern) {
    windows[i] = 0;
  }
  return windows;
}

std::vector<int> parse_late_windows(const ConfigReader& config, int n_layers) {
  std::vector<int> windows = parse_windows(config, n_layers, 0);
  if (config.find("layer_types") == nullptr &&
      config.flag_or("use_sliding_window", false)) {
    const int first = config.count("max_window_layers", kMaxLayers);
    for (int i = first; i < n_layers; ++i) {
      windows[i] = window_of(config);
    }
  }
  return windows;
}

void set_layers(
    TransformerConfig& transformer,
    const RopeConfig& rope,
    const std::vector<int>& windows) {
  for (std::size_t i = 0; i < windows.size(); ++i) {
    transformer.layers[i].rope = rope;
    transformer.layers[i].window = windows[i];
  }
  transformer.max_positions =
      reached_positions(rope, transformer.max_positions);
}

} // namespace optiq::models
