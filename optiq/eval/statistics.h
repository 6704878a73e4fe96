#pragma once

#include <span>
#include <vector>

/** Means and their standard errors, in double. */
namespace optiq::eval {

struct Estimate {
  double value = 0;
  double standard_error = 0; // 0 for fewer than two samples
};

/** Mean of independent samples; standard error sd / sqrt(n). Not empty. */
Estimate mean(std::span<const double> samples);

/**
 * sum(sums) / sum(counts), where each pair comes from one independent row: a
 * mean over all tokens, whose errors within a row are not independent.
 * Standard error by linearization: sqrt(n / (n - 1) sum (s - r c)^2) / sum(c).
 */
Estimate ratio_of_sums(
    std::span<const double> sums,
    std::span<const double> counts);

/** Share of successes among n trials; standard error sqrt(p (1 - p) / n). */
Estimate proportion(std::size_t successes, std::size_t trials);

/** The q-quantile, 0 <= q <= 1, linear between neighbours. Not empty. */
double quantile(std::vector<double> samples, double q);

} // namespace optiq::eval
