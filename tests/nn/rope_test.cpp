#include "optiq/nn/rope.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "optiq/io/array.h"
#include "optiq/kernels/kernels.h"

namespace optiq::nn {

namespace mx = mlx::core;
namespace {

// Values computed by mlx.nn.RoPE(traditional=False, base=1e4) in float32.
TEST(Rope, RotatesAsMlxDoes) {
  struct Case {
    int rotary_dim;
    float expected[8];
  };
  const Case cases[] = {
      {8,
       {-0.564480f,
        -0.522265f,
        1.819127f,
        2.978987f,
        -3.959970f,
        5.072203f,
        6.057291f,
        7.008968f}},
      {4, {-0.282240f, 0.909564f, -1.979985f, 3.028646f, 4, 5, 6, 7}}};
  for (const Case& c : cases) {
    mx::array x = io::make_array({1, 1, 8}, mx::float32);
    std::iota(io::mutable_floats(x).begin(), io::mutable_floats(x).end(), 0.f);
    const std::int32_t position[] = {3};
    const mx::array y =
        kernels::rope(x, position, rope_inverse_frequencies(1e4, c.rotary_dim));
    for (int i = 0; i < 8; ++i) {
      // Six printed decimals of values below 8.
      EXPECT_NEAR(io::floats(y)[i], c.expected[i], 2e-6f) << i;
    }
  }
}

} // namespace
} // namespace optiq::nn
