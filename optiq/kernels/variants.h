#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "optiq/kernels/kernels.h"

/** Operations, and forms of those in kernels.h, that only some families of
 * models ask for. The same rules hold: row independence, float32, run at once.
 */
namespace optiq::kernels {

/** (x - mean(x)) * rsqrt(variance(x) + eps) * weight, over the last axis; the
 * variance divides by D. x [..., D]. */
mx::array layer_norm(const mx::array& x, const mx::array& weight, float eps);

/** bias [D] added to every row of x [T, D]. */
mx::array add_bias(const mx::array& x, const mx::array& bias);

/** How rotary position embedding turns the first `rotary_dim` channels of a
 * head. */
struct Rope {
  std::vector<float> inverse_frequencies; // [rotary_dim / 2]
  /** Pairs (2i, 2i + 1); otherwise (i, i + rotary_dim / 2). */
  bool is_interleaved = false;
  float scale = 1.f; // of what is turned (YaRN, LongRoPE)
};

/** Turns x [T, n_heads, head_dim] at positions [T]; the channels behind
 * rotary_dim are copied. */
mx::array rope(
    const mx::array& x,
    std::span<const std::int32_t> positions,
    const Rope& rope);

/** How the product of a query and a key becomes a score: s = scale * q.k, then
 * softcap * tanh(s / softcap) where softcap is not 0. */
struct ScoreRule {
  float scale = 1.f;
  float softcap = 0.f;
};

/** append_and_attend by this rule. */
mx::array append_and_attend(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    std::span<const AttentionSegment> segments,
    const KvFormat& format,
    const ScoreRule& rule);

} // namespace optiq::kernels
