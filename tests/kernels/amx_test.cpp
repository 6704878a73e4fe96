#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <gtest/gtest.h>

#include "kernels/matrix_support.h"

#include "optiq/kernels/machine.h"

/** Products on tiles of AMX: on machines that have them. */
namespace optiq::kernels::test {
namespace {

class Amx : public testing::Test {
 protected:
  void SetUp() override {
    if (simd_targets().front() != "AMX") {
      GTEST_SKIP() << "this machine has no AMX";
    }
  }
};

std::vector<float> product(
    const std::vector<float>& x,
    int first,
    int rows,
    const Matrix& w,
    Compute compute = Compute::Exact) {
  return values_of(
      matmul(rows_of(x, w.in_features(), first, rows), w, compute));
}

TEST_F(Amx, QuantizedProductsHaveTheBitsOfVectors) {
  const MachineGuard guard;
  const std::string vectors = simd_targets().at(1);
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const int group : {64, 128}) {
      for (const int in : {128, 1024 + 128}) { // a tile of inputs, and more
        for (const int out : {1, 15, 33}) {
          const AffineCase c = make_affine(out, in, bits, group);
          const Matrix w = matrix_of(c);
          const auto x = normal_values(std::size_t{40} * in, 7);
          for (const int rows : {9, 12, 16, 17, 40}) {
            for (const Compute compute : {Compute::Int8, Compute::Exact}) {
              SCOPED_TRACE(
                  testing::Message()
                  << bits << " bits, group " << group << ", [" << out << ", "
                  << in << "], " << rows << " rows");
              force_simd_target("AMX");
              const auto tiles = product(x, 0, rows, w, compute);
              force_simd_target(vectors);
              ASSERT_EQ(tiles, product(x, 0, rows, w, compute));
            }
          }
        }
      }
    }
  }
}

/** The nearest bfloat16. */
float nearest_bfloat(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000;
  std::memcpy(&value, &bits, 4);
  return value;
}

/** What multiply_parts promises, in plain C++. */
float sum_of_parts(const float* w, const float* x, std::size_t n) {
  float sum = 0;
  for (std::size_t at = 0; at < n; at += 32) {
    for (int part = 2; part >= 0; --part) {
      float chains[2] = {};
      for (std::size_t k = at; k < std::min(n, at + 32); ++k) {
        float value = x[k];
        for (int i = 0; i < part; ++i) {
          value -= nearest_bfloat(value);
        }
        float& chain = chains[(k - at) % 2];
        chain = std::fmaf(w[k], nearest_bfloat(value), chain);
      }
      sum += chains[0] + chains[1];
    }
  }
  return sum;
}

TEST_F(Amx, DenseSumsAreInTheOrderOfTheDocs) {
  for (const std::size_t in : {1, 31, 32, 33, 200, 1000}) {
    for (const std::size_t out : {1, 16, 40, 300}) {
      const mx::array weight = array_of(
          normal_values(out * in, 1),
          {static_cast<int>(out), static_cast<int>(in)},
          mx::bfloat16);
      const auto w = values_of(weight);
      const Matrix m = kernels::cpu_device().dense(weight);
      const auto x = normal_values(300 * in, 2);
      for (const std::size_t rows : {1, 3, 16, 17, 40, 300}) {
        SCOPED_TRACE(
            testing::Message()
            << "[" << out << ", " << in << "], " << rows << " rows");
        const auto y = product(x, 0, static_cast<int>(rows), m);
        for (std::size_t row = 0; row < rows; row += 1 + rows / 5) {
          for (std::size_t n = 0; n < out; n += 1 + out / 7) {
            ASSERT_EQ(
                y[row * out + n],
                sum_of_parts(w.data() + n * in, x.data() + row * in, in))
                << "row " << row << ", column " << n;
          }
        }
      }
    }
  }
}

TEST_F(Amx, WhatIsNotFiniteStaysInItsRow) {
  constexpr std::size_t in = 70;
  constexpr std::size_t out = 20;
  const Matrix m = kernels::cpu_device().dense(
      array_of(std::vector<float>(out * in, 2.f), {out, in}, mx::bfloat16));
  for (const std::size_t rows : {5, 40}) {
    std::vector<float> x(rows * in, 1.f);
    x[1 * in + 69] = std::numeric_limits<float>::infinity();
    x[2 * in + 3] = std::numeric_limits<float>::quiet_NaN();
    x[3 * in] = 1e38f;
    const auto y = product(x, 0, static_cast<int>(rows), m);
    for (std::size_t n = 0; n < out; ++n) {
      EXPECT_EQ(y[n], 2.f * in);
      EXPECT_EQ(y[1 * out + n], std::numeric_limits<float>::infinity());
      EXPECT_TRUE(std::isnan(y[2 * out + n]));
      EXPECT_EQ(y[3 * out + n], 2e38f);
      EXPECT_EQ(y[4 * out + n], 2.f * in);
    }
  }
}

} // namespace
} // namespace optiq::kernels::test
