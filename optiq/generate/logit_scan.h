#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "optiq/generate/logit_row.h"

namespace optiq::generate {

/** Tokens in the order of their ids. */
struct TokenList {
  std::vector<std::int32_t> ids;
  std::vector<float> logits;

  std::size_t size() const {
    return ids.size();
  }
};

/** Whether a token comes before another by descending logit, then ascending id.
 */
inline bool
is_before(float logit_a, std::int32_t id_a, float logit_b, std::int32_t id_b) {
  return logit_a != logit_b ? logit_a > logit_b : id_a < id_b;
}

/**
 * What choosing a token asks of a row, with few passes over it: the maxima of
 * its blocks say which blocks matter. The row must outlive this, unchanged.
 */
class LogitScan {
 public:
  explicit LogitScan(const LogitRow& row);
  /** Of a row that lies elsewhere: masses and depths are known at `scale`, no
   * other may be asked for, and the blocks that a function reads have to be
   * there by then. */
  LogitScan(const LogitRow& row, kernels::BlockSums sums, float scale);

  const LogitRow& row() const {
    return row_;
  }
  /** The largest logit that is a number; -inf when there is none above. */
  float largest() const {
    return largest_;
  }
  /** The first token that has it; 0 where all are NaN. Reads blocks_from of
   * it. */
  std::int32_t argmax() const;

  /** The blocks with logits of at least this. */
  std::vector<std::size_t> blocks_from(float threshold) const;
  /** The tokens of at least this finite logit. Reads blocks_from of it. */
  TokenList at_least(float threshold) const;
  /** A finite logit that the first k by is_before have, as far as they are
   * above -inf, and few others. k > 0. */
  float least_of_top(std::size_t k) const;
  /** The k that come first by is_before; all that are above -inf, if fewer.
   * Reads blocks_from of least_of_top. */
  TokenList top(std::size_t k) const;

  /** sum exp((x - largest) scale), finite, at least 1; of a row whose largest
   * is finite. The passes of the last scale are kept. */
  double mass(float scale);
  /** The mean of (largest - x) scale under the softmax of x scale: the entropy
   * less the logarithm of the mass. */
  double mean_depth(float scale);
  /** The token at this place, 0 to 1, of the mass: the first, by id, at which
   * the sum exceeds it. Reads block_at of it. */
  std::int32_t at(double place, float scale);
  std::size_t block_at(double place, float scale);

 private:
  /** A part, 0 to 1, of a block's mass. */
  struct Place {
    std::size_t block;
    double share;
  };

  /** Has masses at this scale. */
  void weigh_blocks(float scale);
  void sum_up(float scale);
  /** Relative to largest_. */
  double block_mass(std::size_t block) const {
    return sums_.masses[block] * heights_[block];
  }
  Place find_place_of(double place, float scale);

  const LogitRow& row_;
  kernels::BlockSums sums_; // depths are empty until they are asked for
  float largest_;
  float scale_ = 0.f; // of what follows; 0 = there is nothing yet
  std::vector<float> heights_; // weights of the maxima
  double mass_ = 0.0;
};

/** Sum of weights, in a fixed order. */
double sum_of(std::span<const float> weights);
/** The first weight at which the sum of them exceeds the wanted one; the last
 * that is above 0 where none does. */
std::size_t find_place(std::span<const float> weights, double wanted);

/** Leaves the k that come first by is_before. */
void keep_top(TokenList& tokens, std::size_t k);

} // namespace optiq::generate
