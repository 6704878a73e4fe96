#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "support/cpu_operations.h"
#include "support/kernel_checks.h"

#include "optiq/base/error.h"

namespace optiq::kernels {
namespace {

namespace mx = mlx::core;
using testing::array_of;
using testing::normal_array;
using testing::rows_of;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const std::vector<int> kSizes{1, 2, 7, 8, 15, 16, 17, 33, 1000, 50001};

double lse_in_double(std::span<const float> x) {
  long double sum = 0.0L;
  for (const float value : x) {
    sum += std::exp(static_cast<long double>(value));
  }
  return static_cast<double>(std::log(sum));
}

/** sum p log(p / q) in long double (64 bits of mantissa on x86). */
double kl_in_double(std::span<const float> r, std::span<const float> x) {
  const auto lse = [](std::span<const float> row) {
    long double sum = 0.0L;
    for (const float value : row) {
      sum += std::exp(static_cast<long double>(value));
    }
    return std::log(sum);
  };
  const long double a = lse(r);
  const long double b = lse(x);
  long double sum = 0.0L;
  for (std::size_t i = 0; i < r.size(); ++i) {
    const long double lp = r[i] - a;
    sum += std::exp(lp) * (lp - (x[i] - b));
  }
  return static_cast<double>(sum);
}

// Double arithmetic: exp 2e-16, a chain of V / 16 sums, all terms positive.
double lse_bound(int n, double lse) {
  return (n / 8.0 + 16) * 1.2e-16 * (1 + std::abs(lse));
}

TEST(Reductions, LogSumExpMatchesDouble) {
  for (const int n : kSizes) {
    const mx::array x = normal_array({2, n}, 3, 6.0f);
    testing::for_each_target([&] {
      const std::vector<double> found = log_sum_exp(x);
      ASSERT_EQ(found.size(), 2U);
      for (int t = 0; t < 2; ++t) {
        const double expected = lse_in_double(io::floats(x).subspan(t * n, n));
        EXPECT_NEAR(found[t], expected, lse_bound(n, expected));
      }
    });
  }
}

TEST(Reductions, KlMatchesDouble) {
  for (const int n : kSizes) {
    const mx::array r = normal_array({2, n}, 4, 4.0f);
    const mx::array x = normal_array({2, n}, 5, 4.0f);
    testing::for_each_target([&] {
      const std::vector<double> found = kl_divergence(r, x);
      for (int t = 0; t < 2; ++t) {
        const double expected = kl_in_double(
            io::floats(r).subspan(t * n, n), io::floats(x).subspan(t * n, n));
        EXPECT_NEAR(found[t], expected, lse_bound(n, 40.0));
      }
    });
  }
}

TEST(Reductions, KlOfNearlyEqualRowsIsAccurate) {
  const int n = 50001;
  const mx::array r = normal_array({1, n}, 6, 4.0f);
  for (const float step : {0.0f, 1e-6f, 1e-4f, 1e-2f}) {
    mx::array x = normal_array({1, n}, 7, step);
    for (int i = 0; i < n; ++i) {
      io::mutable_floats(x)[i] += io::floats(r)[i] + 3.0f;
    }
    const double expected = kl_in_double(io::floats(r), io::floats(x));
    testing::for_each_target(
        [&] { EXPECT_NEAR(kl_divergence(r, x)[0], expected, 1e-11) << step; });
  }
}

TEST(Reductions, MinusInfinityIsAProbabilityOfZero) {
  const mx::array r = array_of({0.0f, -kInfinity, 0.0f, -kInfinity}, {1, 4});
  const mx::array x = array_of({0.0f, 0.0f, 0.0f, -kInfinity}, {1, 4});
  const mx::array none = array_of({-kInfinity, -kInfinity}, {1, 2});
  testing::for_each_target([&] {
    EXPECT_NEAR(log_sum_exp(r)[0], std::log(2.0), 1e-15);
    EXPECT_EQ(log_sum_exp(none)[0], -kInfinity);
    EXPECT_NEAR(kl_divergence(r, x)[0], std::log(1.5), 1e-15);
    // The other way round the reference gives weight to the impossible.
    EXPECT_EQ(kl_divergence(x, r)[0], kInfinity);
    EXPECT_EQ(kernels::argmax(none)[0], 0);
  });
}

TEST(Reductions, NaNIsNotHidden) {
  const mx::array bad = array_of({0.0f, std::nanf(""), 1.0f}, {1, 3});
  const mx::array good = array_of({0.0f, 1.0f, 1.0f}, {1, 3});
  testing::for_each_target([&] {
    EXPECT_TRUE(std::isnan(log_sum_exp(bad)[0]));
    EXPECT_TRUE(std::isnan(kl_divergence(bad, good)[0]));
    EXPECT_TRUE(std::isnan(kl_divergence(good, bad)[0]));
    EXPECT_EQ(kernels::argmax(bad)[0], 2);
  });
}

TEST(Reductions, ArgmaxTakesTheLowestOfTies) {
  for (const int n : kSizes) {
    mx::array x = normal_array({3, n}, 8);
    for (int t = 0; t < 3; ++t) {
      io::mutable_floats(x)[t * n + n / 2] = 50.0f;
      io::mutable_floats(x)[t * n + n - 1] = 50.0f;
      io::mutable_floats(x)[t * n + n * (t + 1) / 4] = 50.0f;
    }
    testing::for_each_target([&] {
      const std::vector<std::int32_t> found = kernels::argmax(x);
      for (int t = 0; t < 3; ++t) {
        EXPECT_EQ(found[t], std::min(n / 2, n * (t + 1) / 4));
      }
    });
  }
}

TEST(Reductions, RowsDoNotDependOnNeighboursOrThreads) {
  const int n = 5003;
  const mx::array r = normal_array({9, n}, 9, 3.0f);
  const mx::array x = normal_array({9, n}, 10, 3.0f);
  std::vector<double> lse;
  std::vector<double> kl;
  {
    const testing::Threads threads(2);
    lse = log_sum_exp(r);
    kl = kl_divergence(r, x);
  }
  const testing::Threads threads(1);
  for (int t = 0; t < 9; ++t) {
    EXPECT_EQ(lse[t], log_sum_exp(rows_of(r, t, 1))[0]);
    EXPECT_EQ(kl[t], kl_divergence(rows_of(r, t, 1), rows_of(x, t, 1))[0]);
  }
}

TEST(Reductions, RefusesWhatDoesNotFit) {
  const auto refused = [](const auto& call, const std::string& word) {
    try {
      call();
      ADD_FAILURE() << "accepted: " << word;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::InvalidInput);
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos)
          << error.what();
    }
  };
  const mx::array x = normal_array({2, 8}, 1);
  refused(
      [&] { kernels::argmax(normal_array({8}, 1)); }, "[argmax] logits: found");
  refused([&] { log_sum_exp(mx::zeros({2, 0})); }, "rows without logits");
  refused(
      [&] {
        kl_divergence(x, normal_array({2, 9}, 1));
      },
      "[kl_divergence] logits: found");
}

} // namespace
} // namespace optiq::kernels
