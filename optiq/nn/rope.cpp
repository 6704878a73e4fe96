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
  for (int i = 0; i < rotary_dim / 2; ++i) {
    frequencies[i] = static_cast<float>(
        scale(std::pow(theta, -2.0 * i / rotary_dim), scaling));
  }
  return frequencies;
}

} // namespace optiq::nn
