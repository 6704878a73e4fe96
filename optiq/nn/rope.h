#pragma once

#include <vector>

#include "optiq/kernels/attention.h"

namespace optiq::nn {

namespace mx = mlx::core;

/** How RoPE differs from the default: mostly to spread over longer texts than
 * the model was trained on. */
struct RopeScaling {
  enum class Kind {
    None,
    Linear, // arXiv 2306.15595: frequencies divided by the factor
    Dynamic, // NTK-aware: a base that grows with the position
    Llama3, // arXiv 2407.21783
    Yarn, // arXiv 2309.00071
    LongRope, // arXiv 2402.13753: a factor per frequency
    Proportional, // Gemma 4's: only the fastest pairs turn
  };
  Kind kind = Kind::None;
  double factor = 1.0; // by which frequencies are divided
  /** What was trained on: Llama 3, YaRN; of Dynamic where growth begins. */
  double original_positions = 8192.0;
  // Llama 3 only: wavelengths beyond original_positions / low_freq_factor are
  // divided, those below original_positions / high_freq_factor are kept, and
  // between them the two are blended.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  // YaRN only: frequencies that turn more than beta_fast times within
  // original_positions are kept, those below beta_slow divided, and between
  // them the two are blended along the index of the pair.
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool rounds_range = true; // of indices, outwards to integers
  /** YaRN and LongRope: what q and k are multiplied by. */
  double attention_factor = 1.0;
  std::vector<double> divisors; // LongRope only: one per frequency
  double rotated_share = 1.0; // Proportional only: of the pairs
};

/** theta^(-2i / rotary_dim) for i < rotary_dim / 2: the default RoPE
 * (arXiv 2104.09864), then scaled; 0 for a pair that does not rotate. Of
 * Dynamic the frequencies within original_positions. */
std::vector<float> rope_inverse_frequencies(
    double theta,
    int rotary_dim,
    const RopeScaling& scaling = {});

/** The table, and for Dynamic the growth beyond it. */
kernels::Rope make_rope(
    double theta,
    int rotary_dim,
    const RopeScaling& scaling = {},
    bool is_interleaved = false);

} // namespace optiq::nn
