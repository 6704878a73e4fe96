#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "support/cpu_operations.h"
#include "support/kernel_checks.h"

#include "optiq/base/error.h"
#include "optiq/kernels/cpu/block_memory.h"
#include "optiq/kernels/mlx/portable.h"

namespace optiq::kernels {
namespace {

namespace mx = mlx::core;
using testing::kUnit;
using testing::normal_array;
using testing::rows_of;
using testing::same_bits;

struct Inputs {
  DeltaNetShape shape;
  DeltaNetWeights weights;
  mx::array qkv;
  mx::array z;
  mx::array b;
  mx::array a;

  Inputs(const DeltaNetShape& s, int tokens, unsigned seed)
      : shape(s),
        weights{
            .conv = normal_array({s.qkv_dim(), s.conv_kernel}, 900),
            .a_log = normal_array({s.n_value_heads}, 901),
            .dt_bias = normal_array({s.n_value_heads}, 902),
            .norm = normal_array({s.value_dim}, 903)},
        qkv(normal_array({tokens, s.qkv_dim()}, seed)),
        z(normal_array({tokens, s.n_value_heads * s.value_dim}, seed + 1)),
        b(normal_array({tokens, s.n_value_heads}, seed + 2)),
        a(normal_array({tokens, s.n_value_heads}, seed + 3)) {}
};

/** A block of the states of one sequence. */
class State {
 public:
  explicit State(const DeltaNetShape& shape)
      : recurrent_(shape.state_floats()),
        values_(shape.state_floats() + shape.conv_floats()) {}
  State(const State& other)
      : recurrent_(other.recurrent_), values_(other.values_) {}
  State& operator=(const State&) = delete;

  std::span<const float> recurrent() const {
    return std::span(values_).first(recurrent_);
  }
  std::span<const float> conv() const {
    return std::span(values_).subspan(recurrent_);
  }
  Segment segment(int first_row, int rows) {
    block_ = cpu::id_of(reinterpret_cast<std::byte*>(values_.data()));
    return {.first_row = first_row, .rows = rows, .blocks = {&block_, 1}};
  }

 private:
  std::size_t recurrent_;
  std::vector<float> values_;
  BlockId block_ = BlockId::None;
};

/** Rows [start, start + rows) of one sequence. */
mx::array advance(const Inputs& in, State& state, int start, int rows) {
  const std::vector<Segment> segments{state.segment(0, rows)};
  return gated_delta_net(
      {rows_of(in.qkv, start, rows),
       rows_of(in.z, start, rows),
       rows_of(in.b, start, rows),
       rows_of(in.a, start, rows)},
      in.weights,
      in.shape,
      segments);
}

/** Outputs of all tokens, then both states, when they come in these chunks. */
std::vector<float> run_chunks(
    const Inputs& in,
    const std::vector<int>& chunks) {
  State state(in.shape);
  std::vector<float> out;
  int start = 0;
  for (const int rows : chunks) {
    const mx::array y = advance(in, state, start, rows);
    out.insert(out.end(), io::floats(y).begin(), io::floats(y).end());
    start += rows;
  }
  const auto conv = state.conv();
  const auto recurrent = state.recurrent();
  out.insert(out.end(), conv.begin(), conv.end());
  out.insert(out.end(), recurrent.begin(), recurrent.end());
  return out;
}

double silu(double x) {
  return x / (1.0 + std::exp(-x));
}

/** Conv and silu of a sequence from its start, [T][qkv_dim]. */
std::vector<double> conv_in_double(const Inputs& in) {
  const int T = in.qkv.shape(0);
  const int C = in.shape.qkv_dim();
  const int K = in.shape.conv_kernel;
  std::vector<double> conv(static_cast<std::size_t>(T) * C);
  for (int t = 0; t < T; ++t) {
    for (int c = 0; c < C; ++c) {
      double sum = 0.0;
      for (int j = 0; j < K; ++j) {
        const int from = t - K + 1 + j;
        if (from >= 0) {
          sum += double{io::floats(in.weights.conv)[c * K + j]} *
              io::floats(in.qkv)[from * C + c];
        }
      }
      conv[t * C + c] = silu(sum);
    }
  }
  return conv;
}

std::vector<double> normalized(const double* x, int n, double factor) {
  double sum = 0.0;
  for (int i = 0; i < n; ++i) {
    sum += x[i] * x[i];
  }
  std::vector<double> y(x, x + n);
  for (double& value : y) {
    value *= factor / std::sqrt(sum + 1e-6);
  }
  return y;
}

struct Oracle {
  std::vector<double> y;
  std::vector<double> bound; // on the error of a float32 result
  std::vector<double> state; // S^T [Hv][Dk][Dv]
  double state_bound = 0.0;
};

/**
 * One value head by the textbook form (decay, read, write, read), and a bound.
 * |k| = 1 and beta, g < 1, so a step does not amplify old errors in a column
 * of S. A step adds: rounding of chains of Dk products with k, q and the column
 * (at most n = Dk + 24 units, 24 for conv, silu, norms and gates) of the size
 * of the column and v. Roundings are independent, so over t steps they grow
 * as sqrt(t n); factor 8 leaves room for the sum of several such terms.
 */
void head_in_double(
    const Inputs& in,
    const std::vector<double>& conv,
    int h,
    Oracle& oracle) {
  const DeltaNetShape& s = in.shape;
  const int T = in.qkv.shape(0);
  const int Dk = s.key_dim;
  const int Dv = s.value_dim;
  const int key_head = h / (s.n_value_heads / s.n_key_heads);
  double* S = oracle.state.data() + h * Dk * Dv;
  double size = 0.0;
  for (int t = 0; t < T; ++t) {
    const double* row = conv.data() + t * s.qkv_dim();
    const auto q = normalized(row + key_head * Dk, Dk, 1 / std::sqrt(Dk));
    const auto k = normalized(row + (s.n_key_heads + key_head) * Dk, Dk, 1);
    const double* v = row + 2 * s.n_key_heads * Dk + h * Dv;
    const int gate = t * s.n_value_heads + h;
    const double beta = 1 / (1 + std::exp(-double{io::floats(in.b)[gate]}));
    const double step = std::log1p(std::exp(
        double{io::floats(in.a)[gate]} + io::floats(in.weights.dt_bias)[h]));
    const double g =
        std::exp(-std::exp(double{io::floats(in.weights.a_log)[h]}) * step);
    std::vector<double> y(Dv);
    double square = 0.0;
    for (int c = 0; c < Dv; ++c) {
      double memory = 0.0;
      double column = 0.0;
      for (int i = 0; i < Dk; ++i) {
        S[i * Dv + c] *= g;
        memory += S[i * Dv + c] * k[i];
        column += S[i * Dv + c] * S[i * Dv + c];
      }
      size = std::max(size, std::sqrt(column) + std::abs(v[c]));
      for (int i = 0; i < Dk; ++i) {
        S[i * Dv + c] += k[i] * beta * (v[c] - memory);
        y[c] += S[i * Dv + c] * q[i];
      }
      square += y[c] * y[c];
    }
    const double state_error =
        8 * kUnit * std::sqrt((t + 1.0) * (Dk + 24)) * size;
    oracle.state_bound = std::max(oracle.state_bound, state_error);
    const double y_error = state_error / std::sqrt(Dk); // |q| = Dk^-1/2
    const double rms = std::sqrt(square / Dv + in.weights.norm_eps);
    for (int c = 0; c < Dv; ++c) {
      const int at = (t * s.n_value_heads + h) * Dv + c;
      const double factor =
          io::floats(in.weights.norm)[c] * silu(io::floats(in.z)[at]) / rms;
      oracle.y[at] = y[c] * factor;
      // The rms, a mean of Dv values, has a relative error of y_error / rms.
      oracle.bound[at] = std::abs(factor) *
          (y_error * (1 + std::abs(y[c]) / rms) +
           (Dv / 4 + 24) * kUnit * std::abs(y[c]));
    }
  }
}

Oracle run_in_double(const Inputs& in) {
  const std::vector<double> conv = conv_in_double(in);
  Oracle oracle;
  oracle.y.resize(in.z.size());
  oracle.bound.resize(in.z.size());
  oracle.state.resize(in.shape.state_floats());
  for (int h = 0; h < in.shape.n_value_heads; ++h) {
    head_in_double(in, conv, h, oracle);
  }
  return oracle;
}

/** `result`: outputs, conv state, state, as run_chunks returns them. */
void expect_close(
    const Inputs& in,
    std::span<const float> result,
    const Oracle& oracle) {
  const std::size_t n = oracle.y.size();
  for (std::size_t i = 0; i < n; ++i) {
    // Written so that NaN fails.
    if (!(std::abs(result[i] - oracle.y[i]) <= oracle.bound[i])) {
      FAIL() << "y " << i << ": " << result[i] << " against " << oracle.y[i]
             << ", bound " << oracle.bound[i];
    }
  }
  const std::size_t before = in.shape.conv_kernel - 1;
  const std::size_t width = in.shape.qkv_dim();
  const std::span<const float> qkv = io::floats(in.qkv);
  for (std::size_t i = 0; i < before * width; ++i) {
    const std::size_t missing = qkv.size() + i;
    const float expected =
        missing < before * width ? 0.0f : qkv[missing - before * width];
    ASSERT_EQ(result[n + i], expected) << "conv state " << i;
  }
  const std::span<const float> state = result.subspan(n + before * width);
  ASSERT_EQ(state.size(), oracle.state.size());
  for (std::size_t i = 0; i < state.size(); ++i) {
    if (!(std::abs(state[i] - oracle.state[i]) <= oracle.state_bound)) {
      FAIL() << "state " << i << ": " << state[i] << " against "
             << oracle.state[i] << ", bound " << oracle.state_bound;
    }
  }
}

const std::vector<DeltaNetShape> kShapes{
    {1, 1, 16, 16, 4},
    {2, 4, 64, 64, 4},
    {1, 3, 32, 80, 2},
    {2, 2, 20, 7, 8},
    {1, 2, 128, 128, 4},
};

TEST(DeltaNet, MatchesDoubleForEveryShapeAndTarget) {
  for (const DeltaNetShape& shape : kShapes) {
    SCOPED_TRACE(
        ::testing::Message() << shape.key_dim << "x" << shape.value_dim);
    for (const int tokens : {1, 2, 70}) {
      const Inputs in(shape, tokens, 7);
      const Oracle oracle = run_in_double(in);
      testing::for_each_target([&] {
        expect_close(in, run_chunks(in, {tokens}), oracle);
        expect_close(in, run_chunks(in, std::vector<int>(tokens, 1)), oracle);
      });
    }
  }
}

TEST(DeltaNet, MatchesPortable) {
  const DeltaNetShape shape{2, 4, 32, 48, 4};
  const Inputs in(shape, 40, 17);
  const Oracle oracle = run_in_double(in);
  portable::DeltaNetResult result = portable::gated_delta_net(
      {in.qkv, in.z, in.b, in.a},
      in.weights,
      shape,
      mx::zeros({3, shape.qkv_dim()}),
      mx::zeros({4, 48, 32}));
  result.state = mx::swapaxes(result.state, 1, 2); // the CPU's is S^T
  std::vector<float> all;
  for (const mx::array* x : {&result.y, &result.conv_state, &result.state}) {
    const mx::array y = io::materialize(*x);
    all.insert(all.end(), io::floats(y).begin(), io::floats(y).end());
  }
  expect_close(in, all, oracle);
}

TEST(DeltaNet, ChunksDoNotChangeABit) {
  for (const DeltaNetShape& shape : kShapes) {
    const Inputs in(shape, 130, 27);
    testing::for_each_target([&] {
      const std::vector<float> whole = run_chunks(in, {130});
      EXPECT_TRUE(same_bits(whole, run_chunks(in, {1, 2, 3, 60, 64})));
      EXPECT_TRUE(same_bits(whole, run_chunks(in, std::vector<int>(130, 1))));
    });
  }
}

TEST(DeltaNet, ThreadsDoNotChangeABit) {
  for (const DeltaNetShape& shape : kShapes) {
    const Inputs in(shape, 130, 37);
    std::vector<std::vector<float>> outs;
    for (const int n : {1, 2, 5}) {
      const testing::Threads threads(n);
      outs.push_back(run_chunks(in, {100, 30}));
    }
    EXPECT_TRUE(same_bits(outs[0], outs[1]));
    EXPECT_TRUE(same_bits(outs[0], outs[2]));
  }
}

TEST(DeltaNet, NeighboursDoNotChangeABit) {
  const DeltaNetShape shape{2, 4, 64, 80, 4};
  // Per sequence: tokens already there, rows in the batch.
  const std::vector<std::pair<int, int>> sequences{
      {3, 1}, {0, 50}, {40, 1}, {5, 0}, {0, 2}, {1, 7}};
  std::vector<State> together;
  std::vector<State> alone;
  std::vector<mx::array> qkv, z, b, a;
  std::vector<float> expected;
  for (const auto& [start, rows] : sequences) {
    const Inputs in(shape, start + rows, 50 + 10 * alone.size());
    State& state = alone.emplace_back(shape);
    if (start > 0) {
      advance(in, state, 0, start);
    }
    together.push_back(state);
    if (rows > 0) {
      const mx::array y = advance(in, state, start, rows);
      expected.insert(
          expected.end(), io::floats(y).begin(), io::floats(y).end());
      qkv.push_back(rows_of(in.qkv, start, rows));
      z.push_back(rows_of(in.z, start, rows));
      b.push_back(rows_of(in.b, start, rows));
      a.push_back(rows_of(in.a, start, rows));
    }
  }
  std::vector<Segment> segments;
  int row = 0;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    segments.push_back(together[i].segment(row, sequences[i].second));
    row += sequences[i].second;
  }
  const mx::array y = gated_delta_net(
      {mx::concatenate(qkv, 0),
       mx::concatenate(z, 0),
       mx::concatenate(b, 0),
       mx::concatenate(a, 0)},
      Inputs(shape, 1, 0).weights,
      shape,
      segments);
  EXPECT_TRUE(same_bits(io::floats(y), expected));
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    EXPECT_TRUE(same_bits(together[i].conv(), alone[i].conv())) << i;
    EXPECT_TRUE(same_bits(together[i].recurrent(), alone[i].recurrent())) << i;
  }
}

TEST(DeltaNet, GatesSurviveLargeInputs) {
  const DeltaNetShape shape{1, 2, 16, 16, 4};
  Inputs in(shape, 3, 77);
  for (const float extreme : {200.0f, -200.0f}) {
    for (mx::array* x : {&in.a, &in.b}) {
      std::fill_n(io::mutable_floats(*x).begin(), x->size(), extreme);
    }
    for (const float value : run_chunks(in, {3})) {
      ASSERT_TRUE(std::isfinite(value)) << extreme;
    }
  }
}

TEST(DeltaNet, RefusesWhatDoesNotFit) {
  const DeltaNetShape shape{1, 2, 16, 16, 4};
  const Inputs in(shape, 3, 87);
  State state(shape);
  const auto refused = [&](const DeltaNetShape& s,
                           const std::vector<Segment>& segments,
                           const std::string& word) {
    try {
      gated_delta_net({in.qkv, in.z, in.b, in.a}, in.weights, s, segments);
      ADD_FAILURE() << "accepted: " << word;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::InvalidInput);
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos)
          << error.what();
    }
  };
  refused(shape, {state.segment(0, 2)}, "2 rows in all");
  refused(shape, {state.segment(1, 2)}, "segment 0");
  refused(
      shape, {Segment{.first_row = 0, .rows = 3, .blocks = {}}}, "segment 0");
  refused({2, 3, 16, 16, 4}, {state.segment(0, 3)}, "2 key heads");
  refused({1, 2, 16, 16, 9}, {state.segment(0, 3)}, "conv kernel 9");
  refused({1, 2, 8, 16, 4}, {state.segment(0, 3)}, "qkv: found");
}

} // namespace
} // namespace optiq::kernels
