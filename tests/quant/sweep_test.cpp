#include "optiq/quant/sweep.h"

#include <cmath>

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace optiq::quant {
namespace {

TEST(SizesOf, BothEndsAreThereDespiteRounding) {
  const std::vector<double> sizes = sizes_of({3, 4, 0.1});
  ASSERT_EQ(sizes.size(), 11u);
  EXPECT_DOUBLE_EQ(sizes.front(), 3);
  EXPECT_DOUBLE_EQ(sizes.back(), 4);
  EXPECT_EQ(sizes_of({3, 8, 0.25}).size(), 21u);
  EXPECT_EQ(sizes_of({4, 4, 1}), std::vector<double>{4});
  EXPECT_EQ(sizes_of({3, 4, 0.7}).size(), 2u);
}

TEST(SizesOf, RefusesWhatIsNoRange) {
  for (const SweepRange range :
       {SweepRange{0, 4, 1},
        SweepRange{5, 4, 1},
        SweepRange{3, 65, 1},
        SweepRange{3, 4, 0},
        SweepRange{3, 4, -1},
        SweepRange{NAN, 4, 1},
        SweepRange{3, 4, NAN}}) {
    test::expect_error(
        ErrorKind::InvalidInput, {"--file-bpw", "LOW:HIGH:STEP"}, [&] {
          sizes_of(range);
        });
  }
  test::expect_error(ErrorKind::InvalidInput, {"at most 1000"}, [] {
    sizes_of({3, 8, 1e-4});
  });
}

} // namespace
} // namespace optiq::quant
