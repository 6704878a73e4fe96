#include "optiq/nn/rope.h"

#include <cmath>

namespace optiq::nn {

std::vector<float> rope_inverse_frequencies(double theta, int rotary_dim) {
  std::vector<float> frequencies(rotary_dim / 2);
  for (int i = 0; i < rotary_dim / 2; ++i) {
    frequencies[i] = static_cast<float>(std::pow(theta, -2.0 * i / rotary_dim));
  }
  return frequencies;
}

} // namespace optiq::nn
