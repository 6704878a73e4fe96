#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace optiq::kernels {

/**
 * What an error e [in] of a row of weights costs: e H e^T, H the second moments
 * of the inputs, the sum of x^T x; the square of the error in what a layer puts
 * out, summed over those x. As factors H = (I + F) diag(importance) (I + F)^T,
 * F above the diagonal; without F the inputs count each by itself.
 */
struct ErrorMetric {
  std::vector<float> importance; // [in]
  std::vector<float> factor; // [in, in], above the diagonal; or empty
};

/** All inputs alike: e e^T. */
ErrorMetric plain_metric(std::size_t n_inputs);

/** Adds x^T x of rows x [T, n] to sums [n, n], on and above the diagonal. The
 * number of threads does not change a bit. */
void add_second_moments(
    std::span<const float> x,
    std::size_t n,
    std::span<float> sums);

/** Of moments [n, n], of which the diagonal is looked at. */
ErrorMetric diagonal_metric(std::span<const float> moments, std::size_t n);

/** Of moments [n, n], on and above the diagonal, after `damping` times their
 * mean diagonal is added to it. Blocked and in place, with a fixed order of
 * sums on the pool's threads: LAPACK's potrf is as fast, but OpenBLAS's bits
 * depend on the number of threads. */
ErrorMetric
factored_metric(std::vector<float> moments, std::size_t n, double damping);

/**
 * What rounding costs on other inputs when a metric's feedback steers it: the
 * mean of e V e^T, e (I + F) = n, over some noises n of 1 or -1 per input,
 * always the same ones; V [n, n] are the inputs' moments, on and above the
 * diagonal. A factor of too few inputs costs more there than none
 * (plain_metric).
 */
double cost_of_rounding(
    const ErrorMetric& metric,
    std::span<const float> moments,
    std::size_t n);

} // namespace optiq::kernels
