#pragma once

#include <vector>

namespace optiq::nn {

/** How a model trained on short texts spreads its RoPE over longer ones. */
struct RopeScaling {
  enum class Kind { None, Linear, Llama3 };
  Kind kind = Kind::None;
  double factor = 1.0; // by which frequencies are divided
  // Llama 3 only: wavelengths beyond original_positions / low_freq_factor are
  // divided, those below original_positions / high_freq_factor are kept, and
  // between them the two are blended.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_positions = 8192.0;
};

/** theta^(-2i / rotary_dim) for i < rotary_dim / 2: the default RoPE
 * (arXiv 2104.09864), then scaled. */
std::vector<float> rope_inverse_frequencies(
    double theta,
    int rotary_dim,
    const RopeScaling& scaling = {});

} // namespace optiq::nn
