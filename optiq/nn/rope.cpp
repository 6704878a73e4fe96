#include "optiq/nn/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "optiq/io/array.h"

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

double dynamic_theta(const Rope::Growth& growth, int rotary_dim, int position) {
  const double stretch =
      growth.factor * (position + 1.0) / growth.positions - growth.factor + 1;
  return growth.theta * std::pow(stretch, rotary_dim / (rotary_dim - 2.0));
}

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

Rope make_rope(
    double theta,
    int rotary_dim,
    const RopeScaling& scaling,
    bool is_interleaved) {
  Rope rope{
      .table = {
          .inverse_frequencies =
              rope_inverse_frequencies(theta, rotary_dim, scaling),
          .is_interleaved = is_interleaved,
          .scale = static_cast<float>(scaling.attention_factor)}};
  if (scaling.kind == RopeScaling::Kind::Dynamic) {
    rope.growth = {
        .theta = theta,
        .factor = scaling.factor,
        .positions = static_cast<int>(scaling.original_positions)};
  }
  return rope;
}

mx::array run_rope(
    const Rope& rope,
    const mx::array& x,
    std::span<const std::int32_t> positions) {
  if (!rope.growth ||
      std::all_of(positions.begin(), positions.end(), [&](int position) {
        return position < rope.growth->positions;
      })) {
    return kernels::rope(x, positions, rope.table);
  }
  const auto rotary_dim =
      static_cast<int>(2 * rope.table.inverse_frequencies.size());
  mx::array y = io::make_array(x.shape(), mx::float32);
  float* to = io::mutable_floats(y).data();
  for (int row = 0; row < x.shape(0); ++row) {
    kernels::Rope table = rope.table;
    if (positions[row] >= rope.growth->positions) {
      table.inverse_frequencies = rope_inverse_frequencies(
          dynamic_theta(*rope.growth, rotary_dim, positions[row]), rotary_dim);
    }
    const mx::array turned = kernels::rope(
        io::row_range(x, row, 1), positions.subspan(row, 1), table);
    to = std::copy_n(io::floats(turned).data(), turned.size(), to);
  }
  return y;
}

} // namespace optiq::nn
