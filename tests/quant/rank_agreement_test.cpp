#include "optiq/quant/rank_agreement.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

namespace optiq::quant {
namespace {

using Doubles = std::vector<double>;

TEST(RankAgreement, SeesOrderAlone) {
  const Doubles truth{1, 2, 3, 4, 5, 6, 7, 8};
  const RankAgreement same =
      rank_agreement(Doubles{1, 10, 11, 12, 100, 101, 102, 1e9}, truth);
  EXPECT_EQ(same.n, 8U);
  EXPECT_EQ(same.top_k, 2U);
  EXPECT_DOUBLE_EQ(same.spearman, 1);
  EXPECT_EQ(same.top_overlap, 1);
  const RankAgreement reverse =
      rank_agreement(Doubles{8, 7, 6, 5, 4, 3, 2, 1}, truth);
  EXPECT_DOUBLE_EQ(reverse.spearman, -1);
  EXPECT_EQ(reverse.top_overlap, 0);
}

TEST(RankAgreement, EqualsHaveTheirMeanRank) {
  // Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: covariance 4.5 of 4.5 and 5.
  EXPECT_DOUBLE_EQ(
      rank_agreement(Doubles{1, 2, 2, 3}, Doubles{1, 2, 3, 4}).spearman,
      4.5 / std::sqrt(4.5 * 5));
  EXPECT_EQ(rank_agreement(Doubles{1, 1}, Doubles{1, 2}).spearman, 0);
  EXPECT_EQ(rank_agreement(Doubles{1}, Doubles{1}).top_overlap, 1);
}

TEST(RankAgreement, TwoOfFourAtTheTop) {
  EXPECT_EQ(
      rank_agreement(
          Doubles{9, 8, 1, 1, 1, 1, 1, 1}, Doubles{9, 1, 8, 1, 1, 1, 1, 1})
          .top_overlap,
      0.5);
}

} // namespace
} // namespace optiq::quant
