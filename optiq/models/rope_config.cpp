#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "optiq/models/rope_config_impl.h"

namespace optiq::models {
namespace {

using artifacts::Json;
using Kind = nn::RopeScaling::Kind;

/** Where the keys of a RoPE stand. */
struct RopeKeys {
  const ConfigReader& outer; // config.json
  const ConfigReader& inner; // rope_scaling or rope_parameters
  int max_positions;

  double original_positions() const {
    constexpr const char* kKey = "original_max_position_embeddings";
    // Phi-3 has it outside, and then it counts.
    return outer.number_above_or(
        0, kKey, inner.number_above_or(0, kKey, max_positions));
  }
  double factor_or_ratio() const {
    return inner.number_above_or(
        0, "factor", max_positions / original_positions());
  }
};

nn::RopeScaling parse_llama3(const RopeKeys& keys) {
  nn::RopeScaling scaling{
      .kind = Kind::Llama3, .factor = keys.inner.number_above(0, "factor")};
  scaling.low_freq_factor =
      keys.inner.number_above_or(0, "low_freq_factor", scaling.low_freq_factor);
  scaling.high_freq_factor = keys.inner.number_above_or(
      scaling.low_freq_factor, "high_freq_factor", scaling.high_freq_factor);
  scaling.original_positions = keys.inner.number_above_or(
      0, "original_max_position_embeddings", scaling.original_positions);
  return scaling;
}

nn::RopeScaling parse_proportional(const RopeKeys& keys) {
  const double share =
      keys.inner.number_above_or(0, "partial_rotary_factor", 1.0);
  keys.inner.require(
      share <= 1,
      ErrorKind::Corrupt,
      "partial_rotary_factor must be at most 1");
  return {
      .kind = Kind::Proportional,
      .factor = keys.inner.number_above_or(0, "factor", 1.0),
      .rotated_share = share};
}

nn::RopeScaling parse_yarn(const RopeKeys& keys) {
  nn::RopeScaling scaling{
      .kind = Kind::Yarn,
      .factor = keys.factor_or_ratio(),
      .original_positions = keys.original_positions()};
  const auto number = [&](const char* key, double fallback) {
    return keys.inner.number_above_or(0, key, fallback);
  };
  scaling.beta_fast = number("beta_fast", scaling.beta_fast);
  scaling.beta_slow = number("beta_slow", scaling.beta_slow);
  scaling.rounds_range = keys.inner.flag_or("truncate", true);
  // Section 3.4 of the paper, in the form that DeepSeek gave it.
  const auto growth = [&](double weight) {
    return scaling.factor <= 1 ? 1
                               : 0.1 * weight * std::log(scaling.factor) + 1;
  };
  const Json* all_dim = keys.inner.find("mscale_all_dim");
  const bool divides = all_dim != nullptr && *all_dim != 0;
  scaling.attention_factor = number(
      "attention_factor",
      growth(number("mscale", 1)) /
          (divides ? growth(number("mscale_all_dim", 1)) : 1));
  return scaling;
}

nn::RopeScaling parse_longrope(const RopeKeys& keys) {
  nn::RopeScaling scaling{
      .kind = Kind::LongRope,
      .factor = keys.factor_or_ratio(),
      .original_positions = keys.original_positions()};
  const Json* factors = keys.inner.find("long_factor");
  const bool are_numbers = factors != nullptr && factors->is_array() &&
      std::all_of(factors->begin(), factors->end(), [](const Json& factor) {
                             return factor.is_number() && factor > 0;
                           });
  keys.inner.require(
      are_numbers,
      ErrorKind::Corrupt,
      "long_factor must be a list of numbers above 0");
  scaling.divisors = factors->get<std::vector<double>>();
  keys.inner.require(
      scaling.original_positions > 1,
      ErrorKind::Corrupt,
      "original_max_position_embeddings must be above 1");
  const double own_factor = scaling.factor <= 1
      ? 1
      : std::sqrt(
            1 +
            std::log(scaling.factor) / std::log(scaling.original_positions));
  scaling.attention_factor =
      keys.inner.number_above_or(0, "attention_factor", own_factor);
  return scaling;
}

nn::RopeScaling parse_scaling(const RopeKeys& keys) {
  const ConfigReader& rope = keys.inner;
  const std::string type = rope.text_or(
      rope.find("type") != nullptr ? "type" : "rope_type", "default");
  if (type == "default") {
    return {};
  }
  if (type == "linear") {
    return {.kind = Kind::Linear, .factor = rope.number_above(0, "factor")};
  }
  if (type == "dynamic") {
    return {
        .kind = Kind::Dynamic,
        .factor = rope.number_above(0, "factor"),
        .original_positions = static_cast<double>(keys.max_positions)};
  }
  if (type == "proportional") {
    return parse_proportional(keys);
  }
  if (type == "yarn") {
    return parse_yarn(keys);
  }
  if (type == "longrope" || type == "su") {
    return parse_longrope(keys);
  }
  rope.require(
      type == "llama3",
      ErrorKind::Unsupported,
      "rope type '" + type +
          "', supported are default, linear, dynamic, llama3, yarn, longrope "
          "and proportional");
  return parse_llama3(keys);
}

double parse_rotary_share(const RopeKeys& keys, const RopeRules& rules) {
  constexpr const char* kKey = "partial_rotary_factor";
  const double share = keys.outer.number_above_or(
      0,
      kKey,
      keys.inner.number_above_or(0, kKey, rules.rotary_share.value_or(1)));
  keys.outer.require(
      share <= 1, ErrorKind::Corrupt, std::string(kKey) + " must be at most 1");
  keys.outer.require(
      rules.rotary_share || share == 1,
      ErrorKind::Unsupported,
      std::string(kKey) +
          " other than 1: models of this family turn whole "
          "heads");
  return share;
}

} // namespace

RopeConfig parse_rope(const ConfigReader& config, const RopeRules& rules) {
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
  // Gemma's rope_parameters by layer kind are read as they are.
  const Json* part = scaling != nullptr ? scaling : parameters;
  const ConfigReader inner = part != nullptr ? config.at(*part) : config;
  const RopeKeys keys{config, inner, rules.max_positions};
  RopeConfig rope{
      .theta = rules.theta
          ? theta.number_above_or(1, "rope_theta", *rules.theta)
          : theta.number_above(1, "rope_theta"),
      .is_interleaved = rules.is_interleaved,
      .scaling = parse_scaling(keys)};
  if (rope.scaling.kind != Kind::Proportional) {
    rope.rotary_share = parse_rotary_share(keys, rules);
  }
  return rope;
}

std::optional<RopeConfig> parse_rope_of_kind(
    const ConfigReader& config,
    bool is_sliding,
    const RopeRules& rules) {
  const Json* by_kind = config.find("rope_parameters");
  const char* name = is_sliding ? "sliding_attention" : "full_attention";
  if (by_kind == nullptr || !by_kind->is_object() || !by_kind->contains(name)) {
    return std::nullopt;
  }
  return parse_rope(config.at(by_kind->at(name)), rules);
}

int reached_positions(const RopeConfig& rope, int max_positions) {
  const bool grows =
      rope.scaling.kind == Kind::Yarn || rope.scaling.kind == Kind::Dynamic;
  const double reached =
      grows ? rope.scaling.factor * rope.scaling.original_positions : 0;
  return std::max(
      max_positions,
      static_cast<int>(std::min<double>(reached, kMaxPositions)));
}

} // namespace optiq::models
