#include "optiq/kernels/profile.h"

#include <gtest/gtest.h>

#include "kernels/matrix_support.h"

namespace optiq::kernels::test {
namespace {

TEST(OpProfile, CountsCallsBySizesWhileItLives) {
  const Matrix small = matrix_of(make_affine(32, 128, 4, 64));
  const Matrix large = matrix_of(make_affine(48, 128, 8, 64));
  const Matrix* const both[] = {&small, &large};
  const mx::array x = array_of(normal_values(2 * 128, 1), {2, 128});
  matmul(x, small, Compute::Fast); // before: not counted
  const auto totals = [&] {
    const OpProfile profile;
    matmul(x, small, Compute::Fast);
    matmul(x, small, Compute::Fast);
    matmul(x, both, Compute::Fast);
    kernels::add(x, x);
    return profile.totals();
  }();
  kernels::add(x, x); // after: nobody listens

  ASSERT_EQ(totals.size(), 3u);
  const auto find = [&](const OpKey& key) {
    for (const OpTotal& total : totals) {
      if (total.key == key) {
        return total;
      }
    }
    ADD_FAILURE() << "no " << key.name << ' ' << key.out;
    return OpTotal{};
  };
  const OpTotal one = find({.name = "matmul", .in = 128, .out = 32, .bits = 4});
  EXPECT_EQ(one.calls, 2u);
  EXPECT_EQ(one.bytes, 2 * small.nbytes());
  EXPECT_GT(one.seconds, 0);
  const OpTotal two = find({.name = "matmul", .in = 128, .out = 80, .bits = 4});
  EXPECT_EQ(two.calls, 1u);
  EXPECT_EQ(two.bytes, small.nbytes() + large.nbytes());
  EXPECT_EQ(find({.name = "add"}).calls, 1u);
  for (std::size_t i = 1; i < totals.size(); ++i) {
    EXPECT_GE(totals[i - 1].seconds, totals[i].seconds);
  }
}

} // namespace
} // namespace optiq::kernels::test
