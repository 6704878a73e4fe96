#pragma once

#include <vector>

namespace optiq::nn {

/** How RoPE differs from the default: mostly to spread over longer texts than
 * the model was trained on. */
struct RopeScaling {
  enum class Kind { None, Linear, Llama3, Proportional };
  Kind kind = Kind::None;
  double factor = 1.0; // by which frequencies are divided
  // Llama 3 only: wavelengths beyond original_positions / low_freq_factor are
  // divided, those below original_positions / high_freq_factor are kept, and
  // between them the two are blended.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_positions = 8192.0;
  // Proportional only: the share of pairs that rotate, the fastest ones.
  double rotated_share = 1.0;
};

/** theta^(-2i / rotary_dim) for i < rotary_dim / 2: the default RoPE
 * (arXiv 2104.09864), then scaled; 0 for a pair that does not rotate. */
std::vector<float> rope_inverse_frequencies(
    double theta,
    int rotary_dim,
    const RopeScaling& scaling = {});

} // namespace optiq::nn
