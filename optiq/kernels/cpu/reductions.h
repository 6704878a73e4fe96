#pragma once

#include <cstddef>
#include <cstdint>

/** Reductions over one row of logits; exp and sums in double, in a fixed
 * order per SIMD target. */
namespace optiq::kernels::cpu {

/** log sum_i exp(x_i); -inf for a row of -inf. */
double log_sum_exp(const float* x, std::size_t n);

/** Lowest index of the largest value; NaN never wins. */
std::int32_t argmax(const float* x, std::size_t n);

/**
 * sum_i p_i (log p_i - log q_i), p = softmax(reference), q = softmax(logits).
 * With d_i = reference_i - logits_i it is E_p[d] - (lse(reference) -
 * lse(logits)): the differences of the logits are exact in double, so nearly
 * equal rows lose only the rounding of the two lse, about 1e-14.
 */
double
kl_divergence(const float* reference, const float* logits, std::size_t n);

} // namespace optiq::kernels::cpu
