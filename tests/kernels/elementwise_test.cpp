#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "support/cpu_operations.h"
#include "support/kernel_checks.h"

#include "optiq/base/error.h"
#include "optiq/kernels/mlx/portable.h"

namespace optiq::kernels {
namespace {

namespace mx = mlx::core;
using testing::array_of;
using testing::kUnit;
using testing::normal_array;
using testing::rows_of;
using testing::same_bits;

const std::vector<int> kSizes{1, 3, 15, 16, 17, 63, 64, 65, 300};

/** |found_i - expected_i| <= bound_i; NaN fails. */
void expect_close(
    const mx::array& found,
    const std::vector<double>& expected,
    const std::vector<double>& bound) {
  const std::span<const float> y = io::floats(found);
  ASSERT_EQ(y.size(), expected.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (!(std::abs(y[i] - expected[i]) <= bound[i])) {
      FAIL() << "element " << i << ": " << y[i] << " against " << expected[i]
             << ", bound " << bound[i];
    }
  }
}

std::vector<double> scaled(const std::vector<double>& x, double factor) {
  std::vector<double> y;
  for (const double value : x) {
    // What vanishes below the normal numbers is allowed to.
    y.push_back(std::abs(value) * factor + 1e-36);
  }
  return y;
}

double sigmoid(double x) {
  return 1.0 / (1.0 + std::exp(-x));
}

/** Both signs, all sizes, both tails of exp. */
mx::array wide_values(int n, unsigned seed) {
  mx::array x = normal_array({n}, seed, 5.0f);
  const std::vector<float> extremes{0.0f, -0.0f, 90.0f, -90.0f, 1e4f, -1e4f};
  for (int i = 0; i < n; i += 7) {
    io::mutable_floats(x)[i] = extremes[i / 7 % extremes.size()];
  }
  return x;
}

TEST(Elementwise, AddIsExact) {
  for (const int n : kSizes) {
    const mx::array a = normal_array({n}, 1);
    const mx::array b = normal_array({n}, 2);
    const mx::array y = kernels::add(a, b);
    for (int i = 0; i < n; ++i) {
      ASSERT_EQ(io::floats(y)[i], io::floats(a)[i] + io::floats(b)[i]);
    }
  }
}

// exp 3 units, 1 + e and the division 2, products 2: below 8 units. MLX's own
// exp is less exact: 16.
TEST(Elementwise, GatesMatchDoubleAndPortable) {
  for (const int n : kSizes) {
    const mx::array g = wide_values(n, 3);
    const mx::array x = normal_array({n}, 4);
    std::vector<double> swish;
    std::vector<double> gated;
    for (int i = 0; i < n; ++i) {
      const double s = sigmoid(io::floats(g)[i]);
      swish.push_back(io::floats(g)[i] * s * io::floats(x)[i]);
      gated.push_back(io::floats(x)[i] * s);
    }
    testing::for_each_target([&] {
      expect_close(swiglu(g, x), swish, scaled(swish, 8 * kUnit));
      expect_close(sigmoid_gate(x, g), gated, scaled(gated, 8 * kUnit));
    });
    expect_close(
        io::materialize(portable::swiglu(g, x)),
        swish,
        scaled(swish, 16 * kUnit));
    expect_close(
        io::materialize(portable::sigmoid_gate(x, g)),
        gated,
        scaled(gated, 16 * kUnit));
  }
}

// The argument of exp is a polynomial with 5 roundings, so its absolute error
// is 5 u; exp passes it on as a relative error where the sigmoid is small.
TEST(Elementwise, GegluMatchesDoubleAndPortable) {
  const double root = std::sqrt(2 / std::acos(-1.0));
  for (const int n : kSizes) {
    const mx::array g = wide_values(n, 3);
    const mx::array x = normal_array({n}, 4);
    std::vector<double> expected;
    std::vector<double> bound;
    std::vector<double> portable_bound;
    for (int i = 0; i < n; ++i) {
      const double v = io::floats(g)[i];
      const double u = 2 * root * (v + 0.044715 * v * v * v);
      const double factor = v * io::floats(x)[i];
      expected.push_back(factor * sigmoid(u));
      const double from_argument = 6 * std::abs(u) * sigmoid(-u);
      bound.push_back(
          std::abs(expected.back()) * (8 + from_argument) * kUnit + 1e-36);
      // 1 + tanh(u / 2) cancels on the left: absolute units of the factor.
      portable_bound.push_back(
          std::abs(factor) * (16 + from_argument) * kUnit + 1e-36);
    }
    testing::for_each_target(
        [&] { expect_close(geglu(g, x), expected, bound); });
    expect_close(
        io::materialize(portable::geglu(g, x)), expected, portable_bound);
  }
}

// 1 - e cancels near 0, so the error is absolute: exp 3 units, four operations
// of one each, of values up to cap; MLX's tanh 8.
TEST(Elementwise, SoftcapMatchesDoubleAndPortable) {
  for (const float cap : {0.5f, 30.f}) {
    for (const int n : kSizes) {
      const mx::array x = wide_values(n, 3);
      std::vector<double> expected;
      for (const float value : io::floats(x)) {
        expected.push_back(cap * std::tanh(static_cast<double>(value) / cap));
      }
      const std::vector<double> bound(n, 8 * cap * kUnit);
      testing::for_each_target(
          [&] { expect_close(softcap(x, cap), expected, bound); });
      expect_close(io::materialize(portable::softcap(x, cap)), expected, bound);
    }
  }
}

TEST(Elementwise, GatesPassNaN) {
  const mx::array x = array_of({std::nanf(""), 1.0f}, {2});
  const mx::array one = array_of({1.0f, 1.0f}, {2});
  testing::for_each_target([&] {
    EXPECT_TRUE(std::isnan(io::floats(swiglu(x, one))[0]));
    EXPECT_TRUE(std::isnan(io::floats(geglu(x, one))[0]));
    EXPECT_FALSE(std::isnan(io::floats(geglu(x, one))[1]));
    EXPECT_TRUE(std::isnan(io::floats(sigmoid_gate(one, x))[0]));
    EXPECT_FALSE(std::isnan(io::floats(swiglu(x, one))[1]));
  });
}

// The sum of squares is a chain of at most n / 16 + 4 terms (4 sums of at
// least 4 lanes), halved by the root; 5 more roundings. MLX sums in one chain
// of lanes: n / 2.
TEST(Elementwise, RmsNormMatchesDoubleAndPortable) {
  for (const int n : kSizes) {
    const mx::array x = normal_array({3, n}, 5);
    const mx::array w = normal_array({n}, 6);
    std::vector<double> expected;
    for (int t = 0; t < 3; ++t) {
      double sum = 0.0;
      for (int i = 0; i < n; ++i) {
        sum += std::pow(double{io::floats(x)[t * n + i]}, 2);
      }
      for (int i = 0; i < n; ++i) {
        expected.push_back(
            io::floats(x)[t * n + i] / std::sqrt(sum / n + double{1e-6f}) *
            io::floats(w)[i]);
      }
    }
    testing::for_each_target([&] {
      expect_close(
          rms_norm(x, w, 1e-6f),
          expected,
          scaled(expected, (n / 32.0 + 7) * kUnit));
    });
    expect_close(
        io::materialize(portable::rms_norm(x, w, 1e-6f)),
        expected,
        scaled(expected, (n / 2.0 + 7) * kUnit));
  }
}

// The mean is a chain of at most n / 4 terms and a division, of values around
// |x|; a centered value is rounded once, and then as in rms_norm.
TEST(Elementwise, LayerNormMatchesDoubleAndPortable) {
  for (const int n : kSizes) {
    if (n == 1) {
      continue; // the variance is 0: only eps is left
    }
    const mx::array x = normal_array({3, n}, 5);
    const mx::array w = normal_array({n}, 6);
    std::vector<double> expected;
    std::vector<double> bound;
    for (int t = 0; t < 3; ++t) {
      const auto row = io::floats(x).subspan(t * n, n);
      double mean = 0.0;
      double size = 0.0;
      for (const double v : row) {
        mean += v / n;
        size += std::abs(v) / n;
      }
      double variance = 0.0;
      for (const double v : row) {
        variance += (v - mean) * (v - mean) / n;
      }
      const double inverse = 1 / std::sqrt(variance + double{1e-6f});
      for (int i = 0; i < n; ++i) {
        const double gain = inverse * io::floats(w)[i];
        expected.push_back((row[i] - mean) * gain);
        bound.push_back(
            std::abs(gain) * kUnit *
            ((n / 4.0 + 8) * size + (n / 2.0 + 10) * std::abs(row[i] - mean)));
      }
    }
    testing::for_each_target(
        [&] { expect_close(layer_norm(x, w, 1e-6f), expected, bound); });
    expect_close(
        io::materialize(portable::layer_norm(x, w, 1e-6f)), expected, bound);
  }
}

TEST(Elementwise, BiasIsAddedToEveryRow) {
  for (const int n : kSizes) {
    const mx::array x = normal_array({3, n}, 5);
    const mx::array bias = normal_array({n}, 6);
    const mx::array y = add_bias(x, bias);
    const mx::array portable_y = io::materialize(portable::add_bias(x, bias));
    for (int i = 0; i < 3 * n; ++i) {
      const float sum = io::floats(x)[i] + io::floats(bias)[i % n];
      ASSERT_EQ(io::floats(y)[i], sum);
      ASSERT_EQ(io::floats(portable_y)[i], sum);
    }
  }
}

struct RopeOracle {
  std::vector<double> y;
  std::vector<double> size; // |a| + |b| of the pair
  std::vector<double> angle;
};

RopeOracle rope_in_double(
    const mx::array& x,
    const std::vector<std::int32_t>& positions,
    const Rope& rope) {
  const int heads = x.shape(1);
  const int dim = x.shape(2);
  const int half = static_cast<int>(rope.inverse_frequencies.size());
  RopeOracle oracle;
  for (int row = 0; row < x.shape(0) * heads; ++row) {
    // No row without a head.
    const int token = row / heads; // NOLINT(clang-analyzer-core.DivideZero)
    const float* in = io::floats(x).data() + row * dim;
    for (int i = 0; i < dim; ++i) {
      if (i >= 2 * half) {
        oracle.y.push_back(in[i]);
        oracle.size.push_back(0.0);
        oracle.angle.push_back(0.0);
        continue;
      }
      const int pair = rope.is_interleaved ? i / 2 : i % half;
      const bool is_first = rope.is_interleaved ? i % 2 == 0 : i < half;
      const double angle =
          double{rope.inverse_frequencies[pair]} * positions[token];
      const double a = rope.scale * in[rope.is_interleaved ? i - i % 2 : pair];
      const double b =
          rope.scale * in[rope.is_interleaved ? i - i % 2 + 1 : pair + half];
      oracle.y.push_back(
          is_first ? a * std::cos(angle) - b * std::sin(angle)
                   : a * std::sin(angle) + b * std::cos(angle));
      oracle.size.push_back(std::abs(a) + std::abs(b));
      oracle.angle.push_back(std::abs(angle));
    }
  }
  return oracle;
}

// The reduced angle (at most pi) is rounded once: pi units; sine and cosine 2,
// their scaling 1, two products and a sum 2.
TEST(Elementwise, RopeMatchesDoubleAndPortable) {
  for (const auto& [dim, half] :
       std::vector<std::pair<int, int>>{{8, 4}, {64, 32}, {80, 10}, {37, 9}}) {
    const std::vector<std::int32_t> positions{0, 1, 3, 77, 2000, 262143};
    std::vector<float> frequencies;
    for (int i = 0; i < half; ++i) {
      frequencies.push_back(std::pow(1e4f, -static_cast<float>(i) / half));
    }
    frequencies.back() = 0.0f; // no rotation
    const mx::array x = normal_array({6, 2, dim}, 8);
    for (const Rope& table :
         {Rope{frequencies}, {frequencies, true}, {frequencies, true, 1.19f}}) {
      const RopeOracle oracle = rope_in_double(x, positions, table);
      testing::for_each_target([&] {
        std::vector<double> bound;
        for (const double size : oracle.size) {
          bound.push_back(size * (M_PI + 5) * kUnit);
        }
        expect_close(rope(x, positions, table), oracle.y, bound);
      });
      // MLX rounds the whole angle to float32.
      std::vector<double> bound;
      for (std::size_t i = 0; i < oracle.size.size(); ++i) {
        bound.push_back(oracle.size[i] * (2 * oracle.angle[i] + 7) * kUnit);
      }
      expect_close(
          io::materialize(portable::rope(x, positions, table)),
          oracle.y,
          bound);
    }
  }
}

TEST(Elementwise, RowsDoNotDependOnNeighboursOrThreads) {
  const int n = 70;
  const int width = 576;
  const mx::array x = normal_array({n, width}, 9);
  const mx::array g = normal_array({n, width}, 10);
  const mx::array w = normal_array({width}, 11);
  std::vector<std::int32_t> positions(n);
  std::iota(positions.begin(), positions.end(), 5);
  const std::vector<float> frequencies{1.0f, 0.5f, 0.1f};
  const auto run = [&](int begin, int rows) {
    const mx::array part = rows_of(x, begin, rows);
    const mx::array heads =
        mx::contiguous(mx::reshape(part, {rows, 9, width / 9}));
    const mx::array y = kernels::add(
        swiglu(part, rows_of(g, begin, rows)), rms_norm(part, w, 1e-6f));
    const mx::array z =
        rope(heads, std::span(positions).subspan(begin, rows), {frequencies});
    std::vector<float> out;
    for (int t = 0; t < rows; ++t) {
      for (const mx::array* part_of : {&y, &z}) {
        const auto values = io::floats(*part_of).subspan(t * width, width);
        out.insert(out.end(), values.begin(), values.end());
      }
    }
    return out;
  };
  testing::for_each_target([&] {
    const testing::Threads threads(1);
    const std::vector<float> whole = run(0, n);
    std::vector<float> parts = run(0, 1);
    for (const auto& [begin, rows] :
         std::vector<std::pair<int, int>>{{1, 3}, {4, 1}, {5, 65}}) {
      const testing::Threads more(2);
      const std::vector<float> part = run(begin, rows);
      parts.insert(parts.end(), part.begin(), part.end());
    }
    EXPECT_TRUE(same_bits(whole, parts));
  });
}

TEST(Elementwise, ForcingATargetChangesTheArithmetic) {
  const mx::array x = normal_array({64, 4096}, 12);
  const mx::array w = normal_array({4096}, 13);
  std::vector<std::vector<float>> results;
  testing::for_each_target([&] {
    const mx::array y = rms_norm(x, w, 1e-6f);
    results.emplace_back(io::floats(y).begin(), io::floats(y).end());
  });
  // Best target first, the oldest (no fused multiply-add, 4 lanes) last.
  ASSERT_GE(results.size(), 2U);
  EXPECT_FALSE(same_bits(results.front(), results.back()));
}

TEST(Elementwise, RefusesWhatDoesNotFit) {
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
  const mx::array y = normal_array({2, 9}, 1);
  const mx::array half = mx::astype(x, mx::float16);
  refused([&] { kernels::add(x, y); }, "[add] second argument: found");
  refused([&] { swiglu(half, half); }, "[swiglu] first argument: found");
  refused([&] { sigmoid_gate(x, y); }, "[sigmoid_gate]");
  refused([&] { rms_norm(x, normal_array({9}, 1), 1e-6f); }, "weight: found");
  refused([&] { layer_norm(x, y, 1e-6f); }, "[layer_norm] weight: found");
  refused([&] { add_bias(x, normal_array({9}, 1)); }, "[add_bias] bias: found");
  const std::vector<std::int32_t> positions{0, 1};
  const std::vector<float> frequencies(5);
  refused(
      [&] {
        rope(normal_array({2, 1, 8}, 1), positions, {frequencies});
      },
      "5 frequencies");
}

} // namespace
} // namespace optiq::kernels
