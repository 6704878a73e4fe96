#include "optiq/artifacts/affine_format.h"

#include <gtest/gtest.h>

namespace optiq::artifacts {
namespace {

TEST(AffineFormat, HasMlxsWidthsAndGroups) {
  for (int bits = -1; bits <= 16; ++bits) {
    EXPECT_EQ(is_one_of(kAffineBits, bits), bits >= 2 && bits <= 8 && bits != 7)
        << bits;
  }
  EXPECT_FALSE(is_one_of(kAffineBits, 2.5));
  EXPECT_TRUE(is_one_of(kAffineGroupSizes, kDefaultGroupSize));
  EXPECT_FALSE(is_one_of(kAffineGroupSizes, 16));
}

TEST(AffineFormat, ListsReadAsASentence) {
  EXPECT_EQ(list_text(kAffineBits), "2, 3, 4, 5, 6 or 8");
  EXPECT_EQ(list_text(kAffineGroupSizes), "32, 64 or 128");
  EXPECT_EQ(list_text({}), "");
  const int one[] = {7};
  EXPECT_EQ(list_text(one), "7");
}

} // namespace
} // namespace optiq::artifacts
