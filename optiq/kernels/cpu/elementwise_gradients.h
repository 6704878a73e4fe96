#pragma once

#include <cstddef>
#include <cstdint>

/** Derivatives of elementwise.h's operations, on one thread: dy is dL/dy. */
namespace optiq::kernels::cpu {

/** Of an RMSNorm: with n = x rsqrt(mean(x^2) + eps) and g = dy * weight,
 * dx = (g - n mean(g n)) rsqrt(mean(x^2) + eps). x, dy, dx [rows][dim]. */
void rms_norm_gradient(
    const float* dy,
    const float* x,
    const float* weight,
    float eps,
    std::size_t rows,
    std::size_t dim,
    float* dx);

/** Of a LayerNorm: the same of x - mean(x), less the mean over the row. */
void layer_norm_gradient(
    const float* dy,
    const float* x,
    const float* weight,
    float eps,
    std::size_t rows,
    std::size_t dim,
    float* dx);

/** Where the derivatives of a gated linear unit go. */
struct GluGradient {
  float* gate = nullptr;
  float* up = nullptr;
};
void swiglu_gradient(
    const float* dy,
    const float* gate,
    const float* up,
    std::size_t n,
    GluGradient to);
void geglu_gradient(
    const float* dy,
    const float* gate,
    const float* up,
    std::size_t n,
    GluGradient to);

/** dy (1 - (y / cap)^2), y being the capped value. */
void softcap_gradient(
    const float* dy,
    const float* y,
    float cap,
    std::size_t n,
    float* dx);

/** Of y = x sigmoid(gate). */
struct SigmoidGateGradient {
  float* x = nullptr;
  float* gate = nullptr;
};
void sigmoid_gate_gradient(
    const float* dy,
    const float* x,
    const float* gate,
    std::size_t n,
    SigmoidGateGradient to);

/** weight (softmax(logits) - onehot(label)) of one row. */
void cross_entropy_gradient(
    const float* logits,
    double log_sum_exp,
    std::int32_t label,
    float weight,
    std::size_t width,
    float* to);

/** Logits of one row and the logarithm of the sum of their exponentials. */
struct LogitRow {
  const float* values = nullptr;
  double log_sum_exp = 0;
};
/** weight (softmax(logits) - softmax(reference)) of one row. */
void kl_divergence_gradient(
    LogitRow reference,
    LogitRow logits,
    float weight,
    std::size_t width,
    float* to);

} // namespace optiq::kernels::cpu
