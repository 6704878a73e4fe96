#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "optiq/generate/logit_scan.h"

namespace optiq::generate {

/**
 * The tokens that may be drawn, by id, while filters take some away. With s the
 * logit times a scale, a token's weight is exp(s - largest s), its probability
 * p its share of the weight of all that are left. Each filter finds the last
 * token that it keeps, and sorts only those next to it: a vocabulary has
 * 250,000 tokens, a nucleus some tens. Tokens are at least one and finite.
 */
class Candidates {
 public:
  Candidates(TokenList tokens, float scale);

  /** Weights at another scale. */
  void weigh(float scale);
  double mass() const;
  /** Of the depth under the weights: the entropy less the logarithm of the
   * mass. */
  double mean_depth() const;
  const TokenList& tokens() const {
    return tokens_;
  }

  /** The fewest of the most probable that have this mass (Holtzman et al.,
   * arXiv 1904.09751); all if they have less. */
  void keep_nucleus(double mass);
  /** p >= min_p * largest p (arXiv 2407.01082). */
  void keep_share(double min_p);
  /** The fewest that have this mass among those whose -log p is next to the
   * entropy (Meister et al., arXiv 2202.00666). -log p is the depth, (largest
   * logit - logit) scale, and the logarithm of the mass, so they are those next
   * to the mean depth. */
  void keep_typical(double mean_depth, double mass);
  /** p >= epsilon, and the most probable. */
  void keep_probable(double epsilon);
  /** p >= min(epsilon, sqrt(epsilon) * exp(-entropy)), and the most probable
   * (Hewitt et al., arXiv 2210.15191). */
  void keep_above_eta(double epsilon);

  /** The token at this place, 0 to 1, of the mass: the first, by id, at which
   * the sum exceeds it. */
  std::int32_t at(double place) const;

 private:
  double depth(std::size_t i) const {
    return (double{largest_} - tokens_.logits[i]) * scale_;
  }
  /** The fewest whose depth is next to this one that have the mass. */
  void keep_nearest(double depth, double mass);
  template <typename Predicate>
  void keep_if(const Predicate& is_kept);

  TokenList tokens_;
  std::vector<float> weights_;
  float largest_ = 0.f; // of the logits
  float scale_ = 1.f;
};

} // namespace optiq::generate
