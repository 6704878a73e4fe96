#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "kernels/matrix_support.h"
#include "support/expect_error.h"

#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/quantize.h"

namespace optiq::kernels::test {
namespace {

using optiq::test::expect_error;

bool same_bytes(const mx::array& a, const mx::array& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
      std::memcmp(a.data<char>(), b.data<char>(), a.nbytes()) == 0;
}

bool same_bytes(const AffineWeights& a, const AffineWeights& b) {
  return same_bytes(a.weight, b.weight) && same_bytes(a.scales, b.scales) &&
      same_bytes(a.biases, b.biases);
}

std::vector<float> floats_of(const mx::array& x) {
  const mx::array wide = io::materialize(mx::astype(x, mx::float32));
  const auto values = io::floats(wide);
  return {values.begin(), values.end()};
}

/** Codes, scales and biases, a value each. */
struct Decoded {
  Decoded(const AffineWeights& q, int in, int bits, int group_size)
      : in_(in),
        bits_(bits),
        group_(group_size),
        scales_(floats_of(q.scales)),
        biases_(floats_of(q.biases)) {
    const auto* bytes =
        reinterpret_cast<const std::uint8_t*>(q.weight.data<std::uint32_t>());
    bytes_.assign(bytes, bytes + q.weight.nbytes());
  }
  int code(int row, int k) const {
    int value = 0;
    for (int bit = 0; bit < bits_; ++bit) {
      const std::size_t at =
          (static_cast<std::size_t>(row) * in_ + k) * bits_ + bit;
      value |= (bytes_[at / 8] >> (at % 8) & 1) << bit;
    }
    return value;
  }
  double scale(int row, int k) const {
    return scales_[(static_cast<std::size_t>(row) * in_ + k) / group_];
  }
  double bias(int row, int k) const {
    return biases_[(static_cast<std::size_t>(row) * in_ + k) / group_];
  }
  double value(int row, int k) const {
    return scale(row, k) * code(row, k) + bias(row, k);
  }

 private:
  int in_;
  int bits_;
  int group_;
  std::vector<float> scales_;
  std::vector<float> biases_;
  std::vector<std::uint8_t> bytes_;
};

/** Rows x whose columns lean on their neighbours, some louder than others. */
std::vector<float> correlated_rows(int rows, int n) {
  auto x = normal_values(static_cast<std::size_t>(rows) * n, 21, 1.f);
  for (int t = 0; t < rows; ++t) {
    float* row = x.data() + static_cast<std::size_t>(t) * n;
    for (int k = 1; k < n; ++k) {
      row[k] = 0.8f * row[k - 1] + 0.6f * row[k];
    }
    for (int k = 0; k < n; ++k) {
      row[k] *= k % 7 == 0 ? 3.f : 1.f;
    }
  }
  return x;
}

/** x^T x and the damping, in double. */
std::vector<double>
moments_of(const std::vector<float>& x, int n, double damping) {
  std::vector<double> h(static_cast<std::size_t>(n) * n);
  for (std::size_t t = 0; t < x.size() / n; ++t) {
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        h[static_cast<std::size_t>(i) * n + j] +=
            static_cast<double>(x[t * n + i]) * x[t * n + j];
      }
    }
  }
  double sum = 0;
  for (int i = 0; i < n; ++i) {
    sum += h[static_cast<std::size_t>(i) * n + i];
  }
  for (int i = 0; i < n; ++i) {
    h[static_cast<std::size_t>(i) * n + i] += damping * sum / n;
  }
  return h;
}

ErrorMetric metric_of(const std::vector<float>& x, int n, double damping) {
  std::vector<float> sums(static_cast<std::size_t>(n) * n);
  add_second_moments(x, n, sums);
  return factored_metric(std::move(sums), n, damping);
}

/** The sum over rows of e H e^T. */
double cost_of(
    const std::vector<float>& w,
    const Decoded& q,
    const std::vector<double>& h,
    int n) {
  double sum = 0;
  std::vector<double> e(n);
  for (int row = 0; row < static_cast<int>(w.size()) / n; ++row) {
    for (int k = 0; k < n; ++k) {
      e[k] = w[static_cast<std::size_t>(row) * n + k] - q.value(row, k);
    }
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        sum += e[i] * h[static_cast<std::size_t>(i) * n + j] * e[j];
      }
    }
  }
  return sum;
}

/** Of the inputs each by itself. */
std::vector<double> diagonal(const std::vector<float>& importance) {
  const std::size_t n = importance.size();
  std::vector<double> h(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    h[i * n + i] = importance[i];
  }
  return h;
}

TEST(ErrorMetric, FactorsAreThoseOfTheMoments) {
  // Around the blocks of 64 and strips of 96.
  for (const int n : {1, 2, 63, 64, 65, 96, 150}) {
    SCOPED_TRACE(n);
    const auto x = correlated_rows(40, n); // fewer rows than inputs, too
    const auto h = moments_of(x, n, 0.01);
    const ErrorMetric metric = metric_of(x, n, 0.01);
    double trace = 0;
    for (int i = 0; i < n; ++i) {
      trace += h[static_cast<std::size_t>(i) * n + i];
    }
    const auto f = [&](int i, int j) {
      return i == j ? 1.0
                    : static_cast<double>(
                          metric.factor[static_cast<std::size_t>(i) * n + j]);
    };
    for (int i = 0; i < n; ++i) {
      EXPECT_GT(metric.importance[i], 0.f);
      for (int j = i; j < n; ++j) {
        double sum = 0;
        for (int k = j; k < n; ++k) {
          sum += f(i, k) * metric.importance[k] * f(j, k);
        }
        // Every sum of float32 products errs by its terms' eps, and no entry
        // of the moments is larger than their trace.
        EXPECT_NEAR(sum, h[static_cast<std::size_t>(i) * n + j], 1e-6 * trace)
            << i << ' ' << j;
      }
    }
  }
}

// The oracle solves for e by itself, with the same noises' expectation: the
// trace of (I + F)^-1 V (I + F)^-T.
TEST(ErrorMetric, CostOfRoundingIsThatOfTheFeedback) {
  const int n = 96;
  const auto x = correlated_rows(400, n);
  const ErrorMetric metric = metric_of(x, n, 0.1);
  const std::vector<double> v = moments_of(x, n, 0);
  std::vector<float> upper(v.begin(), v.end());
  std::vector<double> inverse(static_cast<std::size_t>(n) * n);
  for (int row = 0; row < n; ++row) { // e of the unit noise of input `row`
    double* e = inverse.data() + static_cast<std::size_t>(row) * n;
    e[row] = 1;
    for (int j = row; j < n; ++j) {
      for (int k = j + 1; k < n; ++k) {
        e[k] -= e[j] * metric.factor[static_cast<std::size_t>(j) * n + k];
      }
    }
  }
  double expected = 0;
  for (int row = 0; row < n; ++row) {
    const double* e = inverse.data() + static_cast<std::size_t>(row) * n;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        expected += e[i] * v[static_cast<std::size_t>(i) * n + j] * e[j];
      }
    }
  }
  const double plain = cost_of_rounding(plain_metric(n), upper, n);
  const double found = cost_of_rounding(metric, upper, n);
  // 32 noises: a quadratic form of n signs deviates by less than sqrt(2 / n).
  EXPECT_NEAR(found, expected, 4 * std::sqrt(2. / 32 / n) * expected);
  EXPECT_LT(found, 0.7 * plain);
  // Of two rows only, the factor knows nothing of the others.
  const auto few = correlated_rows(2, n);
  EXPECT_GT(
      cost_of_rounding(metric_of(few, n, 1e-3), upper, n),
      cost_of_rounding(plain_metric(n), upper, n));
}

TEST(ErrorMetric, WithoutInputsAllCountAlike) {
  const std::vector<float> none(9, 0.f);
  EXPECT_EQ(diagonal_metric(none, 3).importance, std::vector<float>(3, 1.f));
  EXPECT_EQ(
      factored_metric(none, 3, 0.01).importance, std::vector<float>(3, 1.f));
  EXPECT_TRUE(factored_metric(none, 3, 0.01).factor.empty());
}

TEST(FitAffine, NeverCostsMoreThanNearest) {
  const int in = 256;
  const auto values =
      normal_values(static_cast<std::size_t>(100) * in, 12, 0.05f);
  const auto x = correlated_rows(300, in);
  std::vector<float> sums(static_cast<std::size_t>(in) * in);
  add_second_moments(x, in, sums);
  const ErrorMetric alone = diagonal_metric(sums, in);
  const ErrorMetric feedback = factored_metric(sums, in, 0.01);
  const auto h = moments_of(x, in, 0.01);
  for (const auto dtype : {mx::bfloat16, mx::float16, mx::float32}) {
    const mx::array w = array_of(values, {100, in}, dtype);
    const auto stored = floats_of(w);
    for (const int bits : {2, 3, 4, 5, 6, 8}) {
      for (const int group : {32, 64, 128}) {
        SCOPED_TRACE(testing::Message() << bits << " bits, group " << group);
        const Decoded nearest(quantize_affine(w, bits, group), in, bits, group);
        const Decoded searched(
            fit_affine(w, bits, group, alone), in, bits, group);
        const Decoded fed(
            fit_affine(w, bits, group, feedback), in, bits, group);
        const auto d = diagonal(alone.importance);
        EXPECT_LE(
            cost_of(stored, searched, d, in), cost_of(stored, nearest, d, in));
        // These inputs are alike enough to make up for each other: by half.
        EXPECT_LT(
            cost_of(stored, fed, h, in),
            0.5 * cost_of(stored, searched, h, in));
      }
    }
  }
}

// The definition in double: the target of a column is its weight and what the
// columns before it lost, and its code the nearest one to that.
TEST(FitAffine, EveryCodeIsTheNearestToWhatItMakesUpFor) {
  const int in = 192;
  const int rows = 97; // a block of rows, and one more
  const mx::array w = array_of(
      normal_values(static_cast<std::size_t>(rows) * in, 5, 0.05f),
      {rows, in},
      mx::bfloat16);
  const auto stored = floats_of(w);
  const ErrorMetric metric = metric_of(correlated_rows(300, in), in, 0.01);
  for (const int bits : {2, 4, 8}) {
    const Decoded q(fit_affine(w, bits, 64, metric), in, bits, 64);
    for (int row = 0; row < rows; ++row) {
      std::vector<double> error(in);
      for (int k = 0; k < in; ++k) {
        const double weight = stored[static_cast<std::size_t>(row) * in + k];
        double target = weight;
        for (int j = 0; j < k; ++j) {
          target +=
              error[j] * metric.factor[static_cast<std::size_t>(j) * in + k];
        }
        error[k] = weight - q.value(row, k);
        const double exact = std::clamp(
            (target - q.bias(row, k)) / q.scale(row, k),
            0.0,
            static_cast<double>((1 << bits) - 1));
        // Half a step, and what float32 rounds of a target of some steps: sums
        // of up to 192 products of values of up to 2^bits steps.
        const double slack = 192 * 0x1p-23 * (1 << bits);
        EXPECT_LE(std::fabs(exact - q.code(row, k)), 0.5 + slack)
            << bits << " bits, row " << row << ", input " << k;
      }
    }
  }
}

TEST(FitAffine, IsTheSameOnAnyNumberOfThreadsAndForAnyRows) {
  const int in = 256;
  const mx::array w = array_of(
      normal_values(static_cast<std::size_t>(250) * in, 5, 0.05f),
      {250, in},
      mx::bfloat16);
  const auto x = correlated_rows(100, in);
  ThreadPool& pool = ThreadPool::shared();
  const int n_threads = pool.size();
  pool.resize(1);
  const ErrorMetric metric = metric_of(x, in, 0.01);
  const AffineWeights one = fit_affine(w, 3, 64, metric);
  for (const int n : {2, 3}) {
    pool.resize(n);
    const ErrorMetric other = metric_of(x, in, 0.01);
    EXPECT_EQ(other.factor, metric.factor);
    EXPECT_TRUE(same_bytes(fit_affine(w, 3, 64, other), one));
  }
  pool.resize(n_threads);
  const AffineWeights few =
      fit_affine(io::row_range(w, 101, 30), 3, 64, metric);
  EXPECT_TRUE(same_bytes(few.weight, io::row_range(one.weight, 101, 30)));
  EXPECT_TRUE(same_bytes(few.scales, io::row_range(one.scales, 101, 30)));
}

TEST(FitAffine, TakesConstantAndZeroGroups) {
  std::vector<float> values(3 * 64, 0.f);
  std::fill_n(values.begin() + 64, 64, 0.5f);
  std::fill_n(values.begin() + 128, 64, -0.25f);
  const mx::array w = array_of(values, {3, 64}, mx::bfloat16);
  const ErrorMetric metric = plain_metric(64);
  const auto stored = floats_of(w);
  for (const int bits : {2, 8}) {
    const Decoded q(fit_affine(w, bits, 64, metric), 64, bits, 64);
    for (int row = 0; row < 3; ++row) {
      for (int k = 0; k < 64; ++k) {
        // Within a step of the scale that MLX gives nothing but one value.
        EXPECT_NEAR(q.value(row, k), stored[row * 64 + k], 1.1e-7 * 255);
      }
    }
  }
}

TEST(FitAffine, RefusesAMetricOfOtherInputs) {
  const mx::array w = array_of(std::vector<float>(128), {2, 64}, mx::bfloat16);
  expect_error(ErrorKind::InvalidInput, {"fit_affine", "64", "32"}, [&] {
    fit_affine(w, 4, 32, plain_metric(32));
  });
  expect_error(ErrorKind::InvalidInput, {"fit_affine", "48"}, [&] {
    fit_affine(w, 4, 48, plain_metric(64));
  });
}

} // namespace
} // namespace optiq::kernels::test
