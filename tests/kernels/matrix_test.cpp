#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>

#include <gtest/gtest.h>

#include "kernels/matrix_support.h"

#include "optiq/base/error.h"

namespace optiq::kernels::test {
namespace {

constexpr int kBits[] = {2, 3, 4, 5, 6, 8};
constexpr int kGroups[] = {32, 64, 128};
constexpr Compute kComputes[] = {Compute::Int8, Compute::Exact};
constexpr int kMostRows = 64;

std::vector<float> product(
    const std::vector<float>& x,
    int first,
    int rows,
    const Matrix& w,
    Compute compute) {
  return values_of(
      matmul(rows_of(x, w.in_features(), first, rows), w, compute));
}

void expect_same_bits(
    const std::vector<float>& all,
    std::size_t offset,
    const std::vector<float>& some) {
  ASSERT_LE(offset + some.size(), all.size());
  EXPECT_EQ(
      std::memcmp(
          all.data() + offset, some.data(), some.size() * sizeof(float)),
      0);
}

/** The values of 64 rows x, then that any cut of them gives the same bits. */
void check_affine(
    const AffineCase& c,
    const std::vector<float>& x,
    Compute compute) {
  SCOPED_TRACE(
      testing::Message() << c.bits << " bits, group " << c.group << ", ["
                         << c.out << ", " << c.in << "], " << name_of(compute));
  const Matrix w = matrix_of(c);
  const auto y = product(x, 0, kMostRows, w, compute);
  ASSERT_EQ(y.size(), static_cast<std::size_t>(kMostRows) * c.out);
  for (int row : {0, 7, 8, kMostRows - 1}) {
    for (int n = 0; n < c.out; ++n) {
      const Expected e = expect_affine(
          c, x.data() + static_cast<std::size_t>(row) * c.in, n, compute);
      ASSERT_NEAR(y[row * c.out + n], e.value, e.bound)
          << "row " << row << ", column " << n;
    }
  }
  int first = 0;
  for (int rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17}) {
    SCOPED_TRACE(testing::Message() << rows << " rows from " << first);
    expect_same_bits(y, first * c.out, product(x, first, rows, w, compute));
    first += rows - 1;
  }
}

void check_affine(const AffineCase& c, Compute compute) {
  check_affine(
      c, normal_values(static_cast<std::size_t>(kMostRows) * c.in, 5), compute);
}

void check_table(
    std::initializer_list<int> chunks,
    std::initializer_list<int> outs) {
  for (int bits : kBits) {
    for (int group : kGroups) {
      for (int groups : chunks) {
        for (int out : outs) {
          const AffineCase c = make_affine(out, groups * group, bits, group);
          for (Compute compute : kComputes) {
            check_affine(c, compute);
          }
        }
      }
    }
  }
}

TEST(Matrix, QuantizedProductsAreRightAndIndependentOfTheBatch) {
  check_table({1, 3}, {1, 15, 16, 17, 33});
}

TEST(Matrix, InputsLongerThanATileKeepTheirOrderOfSums) {
  for (int bits : kBits) {
    const AffineCase c = make_affine(35, 2 * 1024 + 64, bits, 64);
    check_affine(c, Compute::Int8);
    check_affine(c, Compute::Exact);
  }
}

TEST(Matrix, EverySimdTargetRunsTheTable) {
  const MachineGuard guard;
  for (const std::string& target : simd_targets()) {
    SCOPED_TRACE(target);
    force_simd_target(target);
    ASSERT_EQ(simd_target(), target);
    check_table({3}, {17});
  }
}

TEST(Matrix, TheLargestCodesAndDigitsFitEverySum) {
  const MachineGuard guard;
  for (const std::string& target : simd_targets()) {
    SCOPED_TRACE(target);
    force_simd_target(target);
    for (const int bits : kBits) {
      AffineCase c = make_affine(33, 128, bits, 64);
      c.triple.weight =
          mx::full(c.triple.weight.shape(), 0xffffffffu, mx::uint32);
      mx::eval(c.triple.weight);
      std::fill(c.codes.begin(), c.codes.end(), (1 << bits) - 1);
      // Behind a peak of 1: -128 is the lowest second digit, -1 the lowest of
      // both.
      for (const float value : {-128 / 32639.f, -1.f}) {
        std::vector<float> x(static_cast<std::size_t>(kMostRows) * c.in, value);
        for (std::size_t i = 0; i < x.size(); i += 64) {
          x[i] = 1.f;
        }
        for (const Compute compute : kComputes) {
          check_affine(c, x, compute);
        }
      }
    }
  }
}

TEST(Matrix, AForcedTargetStaysForced) {
  const MachineGuard guard;
  const auto targets = simd_targets();
  ASSERT_FALSE(targets.empty());
  EXPECT_EQ(simd_target(), targets.front());
  force_simd_target(targets.back());
  EXPECT_EQ(simd_targets(), targets);
  EXPECT_EQ(simd_target(), targets.back());
  force_simd_target("");
  EXPECT_EQ(simd_target(), targets.front());
  EXPECT_THROW(force_simd_target("AVX9"), Error);
}

TEST(Matrix, ThreadsDoNotChangeABit) {
  const MachineGuard guard;
  const AffineCase c = make_affine(70, 192, 4, 64);
  const auto x = normal_values(kMostRows * 192, 9);
  const Matrix w = matrix_of(c);
  const Matrix d = kernels::cpu_device().dense(
      array_of(normal_values(70 * 192, 3), {70, 192}));
  for (const Matrix* m : {&w, &d}) {
    for (int rows : {1, 5, kMostRows}) {
      ThreadPool::shared().resize(1);
      const auto one = product(x, 0, rows, *m, Compute::Fast);
      for (int threads : {2, 3}) {
        ThreadPool::shared().resize(threads);
        expect_same_bits(one, 0, product(x, 0, rows, *m, Compute::Fast));
      }
    }
  }
}

TEST(Matrix, ParametersOfEveryDtype) {
  for (auto dtype : {mx::bfloat16, mx::float16, mx::float32}) {
    for (int group : kGroups) {
      check_affine(make_affine(33, 2 * group, 5, group, dtype), Compute::Exact);
    }
  }
}

TEST(Matrix, AMappedTripleAtOddAddresses) {
  const AffineCase c = make_affine(17, 128, 3, 64);
  const auto shifted = [](const mx::array& a) {
    const auto memory = std::make_shared<std::vector<char>>(a.nbytes() + 64);
    char* start = memory->data() + 33;
    std::memcpy(start, a.data<char>(), a.nbytes());
    return io::view_array(start, a.shape(), a.dtype(), memory);
  };
  const Matrix w = kernels::cpu_device().quantized(
      shifted(c.triple.weight),
      shifted(c.triple.scales),
      shifted(c.triple.biases),
      c.bits,
      c.group);
  const auto x = normal_values(128, 1);
  EXPECT_EQ(
      product(x, 0, 1, w, Compute::Fast),
      product(x, 0, 1, matrix_of(c), Compute::Fast));
  const mx::array dense =
      array_of(normal_values(17 * 128, 2), {17, 128}, mx::bfloat16);
  EXPECT_EQ(
      product(
          x, 0, 1, kernels::cpu_device().dense(shifted(dense)), Compute::Fast),
      product(x, 0, 1, kernels::cpu_device().dense(dense), Compute::Fast));
}

TEST(Matrix, SeveralMatricesInOneCallEqualOneByOne) {
  const AffineCase a = make_affine(33, 128, 4, 64);
  const AffineCase b = make_affine(16, 128, 8, 32);
  const AffineCase c = make_affine(5, 128, 3, 128);
  const Matrix wa = matrix_of(a);
  const Matrix wb = matrix_of(b);
  const Matrix wc = matrix_of(c);
  const Matrix wd = kernels::cpu_device().dense(
      array_of(normal_values(9 * 128, 4), {9, 128}));
  const Matrix* const all[] = {&wa, &wb, &wc, &wd};
  const auto x = normal_values(20 * 128, 8);
  for (int rows : {1, 20}) {
    const auto ys = matmul(rows_of(x, 128, 0, rows), all, Compute::Exact);
    ASSERT_EQ(ys.size(), 4u);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(values_of(ys[i]), product(x, 0, rows, *all[i], Compute::Exact));
    }
  }
}

double relative_rms(const AffineCase& c, Compute compute) {
  const auto x = normal_values(c.in, 77);
  const auto y = product(x, 0, 1, matrix_of(c), compute);
  double error = 0;
  double norm = 0;
  for (int n = 0; n < c.out; ++n) {
    const Expected e = expect_affine(c, x.data(), n, compute);
    error += (y[n] - e.value) * (y[n] - e.value);
    norm += e.value * e.value;
  }
  return std::sqrt(error / norm);
}

TEST(Matrix, ErrorLevelsOfOneAndTwoDigits) {
  // A step of s leaves s/sqrt(12) of rms error. For normal values the peak of
  // 64 is about 2.4 sigma: 2.4/127/sqrt(12) = 5.4e-3, 2.4/32639/sqrt(12) =
  // 2.1e-5. A factor of two for the draw.
  const mx::array w = array_of(normal_values(256 * 4096, 6), {256, 4096});
  const AffineWeights q = quantize_affine(w, 4, 64);
  AffineCase c = make_affine(256, 4096, 4, 64);
  c.triple = q;
  c.scales = values_of(q.scales);
  c.biases = values_of(q.biases);
  const auto* bytes = q.weight.data<std::uint8_t>();
  for (std::size_t i = 0; i < c.codes.size(); ++i) {
    c.codes[i] = (bytes[i / 2] >> (4 * (i % 2))) & 15;
  }
  const double int8 = relative_rms(c, Compute::Int8);
  const double exact = relative_rms(c, Compute::Exact);
  EXPECT_LT(int8, 2 * 5.4e-3);
  EXPECT_GT(int8, 0.5 * 5.4e-3);
  EXPECT_LT(exact, 2 * 2.1e-5);
}

TEST(Matrix, ANaNStaysInItsRow) {
  const AffineCase c = make_affine(17, 128, 4, 64);
  const Matrix w = matrix_of(c);
  auto x = normal_values(20 * 128, 8);
  const auto clean = product(x, 0, 20, w, Compute::Fast);
  x[3 * 128 + 70] = std::numeric_limits<float>::quiet_NaN();
  x[5 * 128 + 1] = -std::numeric_limits<float>::infinity();
  std::fill_n(x.begin() + 7 * 128, 128, 1e-38f);
  const auto y = product(x, 0, 20, w, Compute::Fast);
  for (int row = 0; row < 20; ++row) {
    for (int n = 0; n < 17; ++n) {
      if (row == 3 || row == 5) {
        EXPECT_TRUE(std::isnan(y[row * 17 + n]));
      } else if (row == 7) {
        EXPECT_EQ(y[row * 17 + n], 0.f);
      } else {
        EXPECT_EQ(y[row * 17 + n], clean[row * 17 + n]);
      }
    }
  }
}

TEST(Matrix, DenseProducts) {
  for (auto dtype : {mx::bfloat16, mx::float16, mx::float32}) {
    for (int in : {1, 15, 16, 17, 31, 33, 63, 200, 1024, 1025, 2080}) {
      for (int out : {1, 3, 7, 33}) {
        SCOPED_TRACE(testing::Message() << "[" << out << ", " << in << "]");
        const mx::array weight = array_of(
            normal_values(static_cast<std::size_t>(out) * in, in),
            {out, in},
            dtype);
        const auto w = values_of(weight);
        const Matrix m = kernels::cpu_device().dense(weight);
        const auto x =
            normal_values(static_cast<std::size_t>(kMostRows) * in, 3);
        const auto y = product(x, 0, kMostRows, m, Compute::Fast);
        for (int row : {0, 3, kMostRows - 1}) {
          for (int n = 0; n < out; ++n) {
            double value = 0;
            double magnitude = 0;
            for (int k = 0; k < in; ++k) {
              const double term = double{w[n * in + k]} * x[row * in + k];
              value += term;
              magnitude += std::fabs(term);
            }
            // A chain of in additions is the longest there can be.
            ASSERT_NEAR(y[row * out + n], value, (in + 1) * kEps * magnitude);
          }
        }
        for (int rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17}) {
          const int first = rows % 5;
          expect_same_bits(
              y, first * out, product(x, first, rows, m, Compute::Exact));
        }
      }
    }
  }
}

TEST(Matrix, DenseProductsBeyondOneBlockOfRowsAndColumns) {
  // 128 rows, 240 columns and 1024 inputs are blocked together.
  const int out = 250;
  const int in = 1030;
  const Matrix m = kernels::cpu_device().dense(
      array_of(normal_values(out * in, 1), {out, in}, mx::bfloat16));
  const auto x = normal_values(130 * in, 2);
  const auto y = product(x, 0, 130, m, Compute::Fast);
  for (int row : {0, 1, 127, 128, 129}) {
    expect_same_bits(y, row * out, product(x, row, 1, m, Compute::Fast));
  }
}

TEST(Matrix, EverySimdTargetRunsDenseProducts) {
  const MachineGuard guard;
  const mx::array weight =
      array_of(normal_values(7 * 45, 1), {7, 45}, mx::float16);
  const auto w = values_of(weight);
  const auto x = normal_values(9 * 45, 2);
  for (const std::string& target : simd_targets()) {
    SCOPED_TRACE(target);
    force_simd_target(target);
    const auto y =
        product(x, 0, 9, kernels::cpu_device().dense(weight), Compute::Fast);
    for (int i = 0; i < 9 * 7; ++i) {
      double value = 0;
      double magnitude = 0;
      for (int k = 0; k < 45; ++k) {
        const double term = double{w[i % 7 * 45 + k]} * x[i / 7 * 45 + k];
        value += term;
        magnitude += std::fabs(term);
      }
      EXPECT_NEAR(y[i], value, 46 * kEps * magnitude);
    }
  }
}

TEST(Matrix, EmbedReturnsTheRows) {
  const std::vector<std::int32_t> ids{0, 32, 16, 15, 15};
  for (int bits : kBits) {
    for (int group : kGroups) {
      const AffineCase c = make_affine(33, 2 * group, bits, group);
      const mx::array rows = embed(ids, matrix_of(c));
      ASSERT_EQ(rows.shape(), (mx::Shape{5, c.in}));
      const auto y = values_of(rows);
      for (std::size_t t = 0; t < ids.size(); ++t) {
        for (int k = 0; k < c.in; ++k) {
          const double product = c.code(ids[t], k) * c.scale(ids[t], k);
          // A product and a sum, each rounded once.
          ASSERT_NEAR(
              y[t * c.in + k],
              c.weight(ids[t], k),
              kEps * (2 * std::fabs(product) + std::fabs(c.bias(ids[t], k))));
        }
      }
    }
  }
  for (auto dtype : {mx::bfloat16, mx::float16, mx::float32}) {
    const mx::array weight =
        array_of(normal_values(33 * 19, 1), {33, 19}, dtype);
    const auto w = values_of(weight);
    const auto y = values_of(embed(ids, kernels::cpu_device().dense(weight)));
    for (std::size_t i = 0; i < y.size(); ++i) {
      EXPECT_EQ(y[i], w[ids[i / 19] * 19 + i % 19]);
    }
  }
}

TEST(Matrix, SizesAndProperties) {
  const Matrix q = matrix_of(make_affine(32, 128, 4, 64));
  EXPECT_EQ(q.out_features(), 32);
  EXPECT_EQ(q.in_features(), 128);
  EXPECT_EQ(q.bits(), 4);
  EXPECT_EQ(q.group_size(), 64);
  EXPECT_TRUE(q.is_quantized());
  EXPECT_EQ(q.nbytes(), 32u * 128 / 2 + 32u * 2 * 2 * 2); // as in the file
  const Matrix d = kernels::cpu_device().dense(mx::zeros({3, 5}, mx::bfloat16));
  EXPECT_FALSE(d.is_quantized());
  EXPECT_EQ(d.bits(), 16);
  EXPECT_EQ(d.group_size(), 0);
  EXPECT_EQ(d.nbytes(), 30u);
}

TEST(Matrix, NoRowsGiveNoRows) {
  const Matrix q = matrix_of(make_affine(32, 128, 4, 64));
  const mx::array y = matmul(mx::zeros({0, 128}), q, Compute::Fast);
  EXPECT_EQ(y.shape(), (mx::Shape{0, 32}));
}

/** Runs `body`, expects InvalidInput whose message holds `text`. */
template <class Body>
void expect_invalid(const Body& body, const std::string& text) {
  try {
    body();
    FAIL() << "nothing was thrown, expected: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::InvalidInput);
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos)
        << error.what();
  }
}

TEST(Matrix, RejectsWhatDoesNotFit) {
  const AffineCase c = make_affine(32, 128, 4, 64);
  const auto& [w, s, b] = c.triple;
  const auto quantized = [](auto... args) {
    return [=] { kernels::cpu_device().quantized(args...); };
  };
  expect_invalid(quantized(w, s, b, 7, 64), "bits: found 7");
  expect_invalid(quantized(w, s, b, 4, 48), "group_size: found 48");
  expect_invalid(quantized(w, s, b, 3, 64), "found [32, 16]");
  expect_invalid(quantized(w, s, b, 4, 32), "scales: found [32, 2]");
  expect_invalid(quantized(w, s, b, 8, 64), "scales: found [32, 2]");
  expect_invalid(
      quantized(w, s, mx::zeros({31, 2}, mx::bfloat16), 4, 64),
      "biases: found [31, 2]");
  expect_invalid(
      quantized(w, s, mx::zeros({32, 2}), 4, 64),
      "biases: found another dtype");
  expect_invalid(
      quantized(mx::zeros({32, 16}), s, b, 4, 64), "weight: found [32, 16]");
  expect_invalid(
      [] {
        kernels::cpu_device().dense(mx::zeros({4, 4}, mx::int32));
      },
      "[Device::dense]");
  expect_invalid(
      [] { kernels::cpu_device().dense(mx::zeros({4})); }, "found [4]");
  const Matrix m = matrix_of(c);
  expect_invalid(
      [&] {
        matmul(mx::zeros({2, 64}), m, Compute::Fast);
      },
      "found [2, 64]");
  expect_invalid(
      [&] {
        matmul(mx::zeros({2, 128}, mx::bfloat16), m, Compute::Fast);
      },
      "2 bytes per element");
}

} // namespace
} // namespace optiq::kernels::test
