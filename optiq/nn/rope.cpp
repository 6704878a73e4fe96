#include "optiq/nn/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace optiq::nn {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

double llama3_frequency(double inverse_frequency, const RopeScaling& scaling) {
  const double waves = scaling.original_positions * inverse_frequency / kTwoPi;
  const double kept = std::clamp(
      (waves - scaling.low_freq_factor) /
          (scaling.high_freq_factor - scaling.low_freq_factor),
      0.0,
      1.0);
  return inverse_frequency * (kept + (1 - kept) / scaling.factor);
}

/** The indices between which YaRN blends. */
struct YarnRange {
  double low = 0;
  double high = 0;

  YarnRange(double theta, int rotary_dim, const RopeScaling& scaling) {
    // The index whose frequency turns so many times in the trained positions.
    const auto index_of = [&](double turns) {
      return rotary_dim *
          std::log(scaling.original_positions / (turns * kTwoPi)) /
          (2 * std::log(theta));
    };
    low = index_of(scaling.beta_fast);
    high = index_of(scaling.beta_slow);
    if (scaling.rounds_range) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, rotary_dim - 1.0);
    if (low == high) {
      high += 0.001; // as the references: no division by 0
    }
  }

  double frequency(double inverse_frequency, int index, double factor) const {
    const double divided = std::clamp((index - low) / (high - low), 0.0, 1.0);
    return inverse_frequency * (1 - divided + divided / factor);
  }
};

} // namespace

std::vector<float> rope_inverse_frequencies(
    double theta,
    int rotary_dim,
    const RopeScaling& scaling) {
  using Kind = RopeScaling::Kind;
  std::vector<float> frequencies(rotary_dim / 2);
  const int n_rotated = scaling.kind == Kind::Proportional
      ? static_cast<int>(rotary_dim * scaling.rotated_share) / 2
      : rotary_dim / 2;
  const YarnRange range(theta, rotary_dim, scaling);
  const auto scaled = [&](double frequency, int i) {
    switch (scaling.kind) {
      case Kind::None:
      case Kind::Dynamic:
        return frequency;
      case Kind::Linear:
      case Kind::Proportional:
        return frequency / scaling.factor;
      case Kind::Llama3:
        return llama3_frequency(frequency, scaling);
      case Kind::Yarn:
        return range.frequency(frequency, i, scaling.factor);
      case Kind::LongRope:
        break;
    }
    return frequency / scaling.divisors[i];
  };
  for (int i = 0; i < n_rotated; ++i) {
    frequencies[i] =
        static_cast<float>(scaled(std::pow(theta, -2.0 * i / rotary_dim), i));
  }
  return frequencies;
}

kernels::Rope make_rope(
    double theta,
    int rotary_dim,
    const RopeScaling& scaling,
    bool is_interleaved) {
  kernels::Rope rope{
      .inverse_frequencies =
          rope_inverse_frequencies(theta, rotary_dim, scaling),
      .is_interleaved = is_interleaved,
      .scale = static_cast<float>(scaling.attention_factor)};
  if (scaling.kind == RopeScaling::Kind::Dynamic) {
    rope.growth = {
        .theta = theta,
        .factor = scaling.factor,
        .positions = static_cast<int>(scaling.original_positions)};
  }
  return rope;
}

} // namespace optiq::nn
