#pragma once

#include <cstddef>
#include <span>

/** How far two lists of numbers rank the same things alike. */
namespace optiq::quant {

/** Of an estimate with the measurement, over what has both. */
struct RankAgreement {
  std::size_t n = 0; // pairs
  double spearman = 0;
  std::size_t top_k = 0; // a quarter of them, at least one
  double top_overlap = 0; // share of the top_k largest that both name
};

/** Spearman's correlation of ranks, ties with their mean rank; 0 where one of
 * them is constant. Lists of one length, at least 1; the earlier of equals is
 * the larger for the top. */
RankAgreement rank_agreement(
    std::span<const double> estimates,
    std::span<const double> truth);

} // namespace optiq::quant
