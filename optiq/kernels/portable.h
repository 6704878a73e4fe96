#pragma once

#include <optional>
#include <utility>

#include "optiq/kernels/device.h"
#include "optiq/kernels/quantize.h"

/**
 * Every operation of kernels.h as a lazy composition of MLX ops: correct on
 * every device, differentiable, and the oracle of the device forms. Compare in
 * float32.
 */
namespace optiq::kernels::portable {

/** x [T, in] times the transpose of a dequantized affine matrix. */
mx::array matmul(const mx::array& x, const mx::array& weight);
mx::array matmul(
    const mx::array& x,
    const AffineWeights& weights,
    int bits,
    int group_size);

mx::array rms_norm(const mx::array& x, const mx::array& weight, float eps);
mx::array layer_norm(const mx::array& x, const mx::array& weight, float eps);
mx::array add_bias(const mx::array& x, const mx::array& bias);
mx::array swiglu(const mx::array& gate, const mx::array& up);
mx::array geglu(const mx::array& gate, const mx::array& up);
mx::array softcap(const mx::array& x, float cap);
mx::array sigmoid_gate(const mx::array& x, const mx::array& gate);
mx::array
rope(const mx::array& x, const mx::array& positions, const Rope& rope);

/** Causal attention of one sequence: q [T, H, D], keys and values [S, Hkv, D];
 * row t sees the first S - T + t + 1 keys, and of those the last `window` when
 * it is not 0. */
mx::array attend(
    const mx::array& q,
    const mx::array& keys,
    const mx::array& values,
    const ScoreRule& rule,
    int window = 0);
inline mx::array attend(
    const mx::array& q,
    const mx::array& keys,
    const mx::array& values,
    float scale,
    int window = 0) {
  return attend(q, keys, values, ScoreRule{scale}, window);
}

/** k or v [S, Hkv, D] as the format's cache holds them: quantized and turned
 * back into float32. With `attend` the oracle of packed attention. */
mx::array cached_keys(const mx::array& k, const KvFormat& format);
mx::array cached_values(const mx::array& v, const KvFormat& format);

/** Of one sequence of T tokens. */
struct DeltaNetResult {
  mx::array y; // [T, Hv * Dv]
  mx::array conv_state; // [conv_kernel - 1, qkv_dim]
  mx::array state; // [Hv, Dk, Dv]
};
DeltaNetResult gated_delta_net(
    const mx::array& qkv,
    const mx::array& z,
    const mx::array& b,
    const mx::array& a,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    const mx::array& conv_state,
    const mx::array& state);

mx::array log_sum_exp(const mx::array& logits);
mx::array kl_divergence(const mx::array& reference, const mx::array& logits);

} // namespace optiq::kernels::portable
