#pragma once

#include <optional>

#include "optiq/models/config_impl.h"
#include "optiq/nn/rope.h"

namespace optiq::models {

/** A layer's RoPE as config.json words it. */
struct RopeConfig {
  double theta = 0;
  double rotary_share = 1.0; // of a head's channels, the first ones
  bool is_interleaved = false;
  nn::RopeScaling scaling;

  int rotary_dim(int head_dim) const {
    return static_cast<int>(head_dim * rotary_share);
  }
};

/** What a family knows of its RoPE besides config.json. */
struct RopeRules {
  std::optional<double> theta; // where rope_theta is missing
  int max_positions = 0;
  /** Where partial_rotary_factor is missing; nothing: the family's models turn
   * whole heads, and another factor is Unsupported. */
  std::optional<double> rotary_share;
  bool is_interleaved = false;
};

/**
 * rope_theta with rope_scaling, or rope_parameters, or these keys themselves.
 * Types default, linear, dynamic, llama3, yarn, longrope (su) and proportional;
 * others are Unsupported. Where mlx-lm and transformers differ:
 *   longrope  long_factor at every length, as mlx-lm: transformers' choice by
 *             the length so far would make a token depend on later ones
 *   dynamic   a token's base depends on its own position
 * (kernels::Rope::Growth) yarn      attention_factor and truncate count where
 * config.json states them, as in transformers; mlx-lm does not read them
 */
RopeConfig parse_rope(const ConfigReader& config, const RopeRules& rules);

/** parse_rope of what rope_parameters says of one kind of layers, as
 * transformers 5 writes it; nothing where it says no such thing. */
std::optional<RopeConfig> parse_rope_of_kind(
    const ConfigReader& config,
    bool is_sliding,
    const RopeRules& rules);

/** Positions that a model of max_positions reaches with this RoPE. */
int reached_positions(const RopeConfig& rope, int max_positions);

} // namespace optiq::models
