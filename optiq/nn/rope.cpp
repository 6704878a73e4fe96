#include "optiq/nn/rope.h"

#include <algorithm>
#include <cmath>

namespace optiq::nn {
namespace {

double scale(double inverse_frequency, const RopeScaling& scaling) {
  switch (scaling.kind) {
    case RopeScaling::Kind::None:
      return inverse_frequency;
    case RopeScaling::Kind::Linear:
    case RopeScaling::Kind::Proportional:
      return inverse_frequency / scaling.factor;
    case RopeScaling::Kind::Llama3:
      break;
  }
  constexpr double kTwoPi = 6.283185307179586477;
  const double waves = scaling.original_positions * inverse_frequency / kTwoPi;
  const double kept = std::clamp(
      (waves - scaling.low_freq_factor) /
          (scaling.high_freq_factor - scaling.low_freq_factor),
      0.0,
      1.0);
  return inverse_frequency * (kept + (1 - kept) / scaling.factor);
}

} // namespace

std::vector<float> rope_inverse_frequencies(
    double theta,
    int rotary_dim,
    const RopeScaling& scaling) {
  std::vector<float> frequencies(rotary_dim / 2);
  const int n_rotated = scaling.kind == RopeScaling::Kind::Proportional
      ? static_cast<int>(rotary_dim * scaling.rotated_share) / 2
      : rotary_dim / 2;
  for (int i = 0; i < n_rotated; ++i) {
    frequencies[i] = static_cast<float>(
        scale(std::pow(theta, -2.0 * i / rotary_dim), scaling));
  }
  return frequencies;
}

} // namespace optiq::nn
