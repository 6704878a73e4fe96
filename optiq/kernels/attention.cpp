#include "optiq/kernels/attention.h"

#include <algorithm>
#include <cmath>

namespace optiq::kernels {

std::vector<std::int32_t> positions_of(std::span<const Segment> segments) {
  std::vector<std::int32_t> positions;
  for (const Segment& segment : segments) {
    for (int i = 0; i < segment.rows; ++i) {
      positions.push_back(segment.start + i);
    }
  }
  return positions;
}

std::vector<float> inverse_frequencies(double theta, int rotary_dim) {
  std::vector<float> frequencies(rotary_dim / 2);
  for (int i = 0; i < rotary_dim / 2; ++i) {
    frequencies[i] = static_cast<float>(std::pow(theta, -2.0 * i / rotary_dim));
  }
  return frequencies;
}

std::vector<float> frequencies_at(const Rope& rope, int position) {
  if (!rope.growth || position < rope.growth->positions) {
    return rope.inverse_frequencies;
  }
  const Rope::Growth& growth = *rope.growth;
  const auto rotary_dim = static_cast<int>(2 * rope.inverse_frequencies.size());
  const double stretch =
      growth.factor * (position + 1.0) / growth.positions - growth.factor + 1;
  return inverse_frequencies(
      growth.theta * std::pow(stretch, rotary_dim / (rotary_dim - 2.0)),
      rotary_dim);
}

bool uses_table(const Rope& rope, std::span<const std::int32_t> positions) {
  return !rope.growth ||
      std::all_of(positions.begin(), positions.end(), [&](int position) {
        return position < rope.growth->positions;
      });
}

float growth_at(const QueryGrowth& growth, int position) {
  const int periods = position / growth.period; // whole ones
  return static_cast<float>(1 + growth.beta * std::log1p(periods));
}

} // namespace optiq::kernels
