#include "optiq/kernels/cpu/low_rank.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "support/kernel_checks.h"

namespace optiq::kernels::cpu {
namespace {

using testing::normal_array;

struct Shape {
  int rows = 1;
  int in = 1;
  int rank = 1;
  int out = 1;
};

const std::vector<Shape> kShapes{
    {1, 1, 1, 1},
    {1, 15, 3, 17},
    {2, 16, 4, 16},
    {3, 17, 5, 33},
    {4, 64, 8, 64},
    {5, 65, 9, 127},
    {7, 96, 16, 130},
    {9, 576, 2, 300}};

mx::array of_type(const mx::array& x, FloatType type) {
  const mx::Dtype dtype = type == FloatType::BFloat16 ? mx::bfloat16
      : type == FloatType::Float16                    ? mx::float16
                                                      : mx::float32;
  return io::materialize(mx::astype(x, dtype));
}

std::vector<float> floats_of(const mx::array& x) {
  const mx::array wide = io::materialize(mx::astype(x, mx::float32));
  return {wide.data<float>(), wide.data<float>() + wide.size()};
}

/** Everything that one update of all rows reads and writes. */
struct Case {
  Shape shape;
  mx::array x;
  mx::array a;
  mx::array b;
  std::vector<float> inner;
  LowRankTerm term;

  Case(const Shape& s, FloatType type)
      : shape(s),
        x(normal_array({s.rows, s.in}, 1)),
        a(of_type(normal_array({s.rank, s.in}, 2), type)),
        b(of_type(normal_array({s.rank, s.out}, 3), type)),
        inner(std::size_t{1} * s.rows * s.rank) {
    term = {
        .rows = s.rows,
        .a = {a.data<void>(), type, s.rank, s.in},
        .b = {b.data<void>(), type, s.rank, s.out},
        .scale = 0.5f,
        .inner = inner.data()};
  }

  /** What is added to rows of zeros, in pieces of so many ranks and columns. */
  std::vector<float> run(std::size_t ranks, std::size_t columns) const {
    const auto rank = static_cast<std::size_t>(shape.rank);
    const auto out = static_cast<std::size_t>(shape.out);
    for (std::size_t at = 0; at < rank; at += ranks) {
      multiply_inner(term, x.data<float>(), at, std::min(rank, at + ranks));
    }
    std::vector<float> y(shape.rows * out);
    for (std::size_t at = 0; at < out; at += columns) {
      add_low_rank(term, at, std::min(out, at + columns), {y.data() + at, out});
    }
    return y;
  }
};

TEST(LowRank, AddsWhatTheFormulaSays) {
  testing::for_each_target([] {
    for (const FloatType type :
         {FloatType::BFloat16, FloatType::Float16, FloatType::Float32}) {
      for (const Shape& s : kShapes) {
        const Case c(s, type);
        const std::vector<float> y = c.run(s.rank, s.out);
        const std::vector<float> a = floats_of(c.a);
        const std::vector<float> b = floats_of(c.b);
        for (int t = 0; t < s.rows; ++t) {
          for (int n = 0; n < s.out; ++n) {
            double sum = 0;
            double size = 0; // of the terms, for the bound
            for (int r = 0; r < s.rank; ++r) {
              double inner = 0;
              double inner_size = 0;
              for (int k = 0; k < s.in; ++k) {
                const double product =
                    double{c.x.data<float>()[t * s.in + k]} * a[r * s.in + k];
                inner += product;
                inner_size += std::abs(product);
              }
              sum += 0.5 * inner * b[r * s.out + n];
              size += 0.5 * inner_size * std::abs(b[r * s.out + n]);
            }
            // Roundings of two sums, one inside the other.
            const double bound = (s.in + s.rank + 4) * testing::kUnit * size;
            ASSERT_NEAR(y[t * s.out + n], sum, bound)
                << s.rows << " " << s.in << " " << s.rank << " " << s.out;
          }
        }
      }
    }
  });
}

TEST(LowRank, BitsOfARowDoNotDependOnWhatIsBesideIt) {
  testing::for_each_target([] {
    for (const Shape& s : kShapes) {
      const Case all(s, FloatType::BFloat16);
      const std::vector<float> together = all.run(s.rank, s.out);
      EXPECT_TRUE(testing::same_bits(together, all.run(1, 16)));
      EXPECT_TRUE(testing::same_bits(together, all.run(3, 48)));
      for (int t = 0; t < s.rows; ++t) {
        Case one(all);
        one.x = testing::rows_of(all.x, t, 1);
        one.shape.rows = one.term.rows = 1;
        one.term.inner = one.inner.data();
        const std::vector<float> alone = one.run(s.rank, s.out);
        EXPECT_EQ(
            std::memcmp(
                alone.data(),
                together.data() + t * s.out,
                s.out * sizeof(float)),
            0)
            << t;
      }
    }
  });
}

TEST(LowRank, LeavesOtherRowsAlone) {
  Case c({2, 33, 3, 70}, FloatType::BFloat16);
  c.x = normal_array({5, 33}, 7);
  c.term.first_row = 2;
  multiply_inner(c.term, c.x.data<float>(), 0, 3);
  std::vector<float> y(5 * 70, 1.f);
  add_low_rank(c.term, 0, 70, {y.data(), 70});
  for (int row = 0; row < 5; ++row) {
    const bool is_updated = row == 2 || row == 3;
    for (int n = 0; n < 70; ++n) {
      ASSERT_EQ(y[row * 70 + n] != 1.f, is_updated) << row << " " << n;
    }
  }
}

} // namespace
} // namespace optiq::kernels::cpu
