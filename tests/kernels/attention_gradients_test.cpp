#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/gradient_checks.h"
#include "support/expect_error.h"

#include "optiq/kernels/gradients.h"

/** Attention backwards, against central differences of attention in double. */
namespace optiq::kernels {
namespace {

using testing::normal_array;

struct AttentionCase {
  std::string name;
  AttentionRule rule;
  std::vector<int> lengths; // of the batch's sequences
  int window = 0;

  int rows() const {
    int n = 0;
    for (const int length : lengths) {
      n += length;
    }
    return n;
  }
  std::vector<Segment> segments() const {
    std::vector<Segment> all;
    int next = 0;
    for (const int length : lengths) {
      all.push_back({.first_row = next, .rows = length});
      next += length;
    }
    return all;
  }
};

/** RMS norm of parts of `dim`, in place. */
void norm_parts(Doubles& x, const std::optional<mx::array>& weight, float eps) {
  if (!weight) {
    return;
  }
  const Doubles w = doubles_of(*weight);
  for (std::size_t at = 0; at < x.size(); at += w.size()) {
    double square = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      square += x[at + i] * x[at + i];
    }
    const double inverse =
        1 / std::sqrt(square / static_cast<double>(w.size()) + eps);
    for (std::size_t i = 0; i < w.size(); ++i) {
      x[at + i] *= inverse * w[i];
    }
  }
}

/** Heads [rows][heads][dim] of one sequence turned at 0, 1, ..., in place. */
void turn(Doubles& x, const AttentionRule& rule, int heads) {
  if (!rule.rope) {
    return;
  }
  const Rope& rope = *rule.rope;
  const std::size_t width = std::size_t{1} * heads * rule.head_dim;
  for (std::size_t t = 0; t < x.size() / width; ++t) {
    const auto frequencies = frequencies_at(rope, static_cast<int>(t));
    const std::size_t half = frequencies.size();
    for (int h = 0; h < heads; ++h) {
      double* head = x.data() + t * width + h * rule.head_dim;
      for (std::size_t i = 0; i < half; ++i) {
        double& a = head[rope.is_interleaved ? 2 * i : i];
        double& b = head[rope.is_interleaved ? 2 * i + 1 : i + half];
        const double angle = static_cast<double>(t) * double{frequencies[i]};
        const double c = rope.scale * std::cos(angle);
        const double s = rope.scale * std::sin(angle);
        const double turned = a * c - b * s;
        b = a * s + b * c;
        a = turned;
      }
    }
  }
}

/** What one row of one head attends to. */
Doubles attend_row(
    const AttentionCase& c,
    const double* q,
    const Doubles& k,
    const Doubles& v,
    int row,
    int kv_head) {
  const AttentionRule& rule = c.rule;
  const int first = c.window == 0 ? 0 : std::max(0, row - c.window + 1);
  const int dim = rule.head_dim;
  const auto at = [&](int t) { return (t * rule.n_kv_heads + kv_head) * dim; };
  Doubles y(dim);
  double sum = 0;
  for (int t = first; t <= row; ++t) {
    double score = 0;
    for (int i = 0; i < dim; ++i) {
      score += q[i] * k[at(t) + i];
    }
    score *= rule.scores.scale;
    if (rule.scores.softcap > 0) {
      score = rule.scores.softcap * std::tanh(score / rule.scores.softcap);
    }
    const double weight = std::exp(score);
    sum += weight;
    for (int i = 0; i < dim; ++i) {
      y[i] += weight * v[at(t) + i];
    }
  }
  for (double& value : y) {
    value /= sum;
  }
  return y;
}

/** Rows of one sequence: q [rows][heads * dim (twice)], k and v. */
Doubles attend_sequence(
    const AttentionCase& c,
    const Doubles& q,
    Doubles k,
    Doubles v,
    int rows) {
  const AttentionRule& rule = c.rule;
  const int dim = rule.head_dim;
  const int width = rule.n_heads * dim;
  Doubles queries;
  Doubles gates;
  for (int i = 0; i < rows * rule.n_heads; ++i) {
    const int stride = rule.has_output_gate ? 2 * dim : dim;
    const auto head = q.begin() + i * stride;
    queries.insert(queries.end(), head, head + dim);
    if (rule.has_output_gate) {
      gates.insert(gates.end(), head + dim, head + 2 * dim);
    }
  }
  norm_parts(queries, rule.q_norm, rule.norm_eps);
  norm_parts(k, rule.k_norm, rule.norm_eps);
  norm_parts(v, rule.v_norm, rule.norm_eps);
  turn(queries, rule, rule.n_heads);
  turn(k, rule, rule.n_kv_heads);
  Doubles y;
  for (int t = 0; t < rows; ++t) {
    for (int h = 0; h < rule.n_heads; ++h) {
      double* head = queries.data() + t * width + h * dim;
      for (int i = 0; i < dim && rule.query_growth; ++i) {
        head[i] *= growth_at(*rule.query_growth, t);
      }
      const int kv_head = h / (rule.n_heads / rule.n_kv_heads);
      const Doubles row = attend_row(c, head, k, v, t, kv_head);
      y.insert(y.end(), row.begin(), row.end());
    }
  }
  for (std::size_t i = 0; i < gates.size(); ++i) {
    y[i] /= 1 + std::exp(-gates[i]);
  }
  return y;
}

GradientCase gradient_case(const AttentionCase& c) {
  const int width = c.rule.n_heads * c.rule.head_dim;
  const int q_width = c.rule.has_output_gate ? 2 * width : width;
  const int kv_width = c.rule.n_kv_heads * c.rule.head_dim;
  const mx::array q = normal_array({c.rows(), q_width}, 1);
  const mx::array k = normal_array({c.rows(), kv_width}, 2);
  const mx::array v = normal_array({c.rows(), kv_width}, 3);
  return {
      .name = c.name,
      .inputs = {q, k, v},
      .output = {c.rows(), width},
      .function =
          [=](const std::vector<Doubles>& x) {
            Doubles y;
            int first = 0;
            for (const int rows : c.lengths) {
              const auto part = [&](const Doubles& all, int columns) {
                return Doubles(
                    all.begin() + first * columns,
                    all.begin() + (first + rows) * columns);
              };
              const Doubles own = attend_sequence(
                  c,
                  part(x[0], q_width),
                  part(x[1], kv_width),
                  part(x[2], kv_width),
                  rows);
              y.insert(y.end(), own.begin(), own.end());
              first += rows;
            }
            return y;
          },
      .gradients = [=](Device& device, const mx::array& dy) -> Arrays {
        const AttentionGradients d = device.gradients().attend(
            dy,
            device.upload(q),
            device.upload(k),
            device.upload(v),
            on_device(device, c.rule),
            c.segments(),
            c.window);
        return {d.q, d.k, d.v};
      },
      // Projections, softmax and sums over up to 150 keys.
      .chain = 2000};
}

AttentionRule rule_of(int heads, int kv_heads, int dim) {
  return {
      .n_heads = heads,
      .n_kv_heads = kv_heads,
      .head_dim = dim,
      .scores = {.scale = 1.f / std::sqrt(static_cast<float>(dim))}};
}

TEST(AttentionGradients, OfOneSequence) {
  for (const int rows : {1, 2, 63, 64, 65, 150}) {
    expect_gradients_on_all(gradient_case(
        {std::to_string(rows) + " rows", rule_of(2, 1, 8), {rows}}));
  }
  expect_gradients_on_all(
      gradient_case({"heads of 64 channels", rule_of(4, 2, 64), {70}}));
}

TEST(AttentionGradients, OfMoreQueriesThanABlockHas) {
  expect_gradients_on_all(gradient_case({"long", rule_of(2, 1, 8), {530}}));
  expect_gradients_on_all(
      gradient_case({"long, with a window", rule_of(2, 1, 8), {530}, 100}));
}

TEST(AttentionGradients, OfPackedSequences) {
  expect_gradients_on_all(
      gradient_case({"packed", rule_of(4, 2, 16), {5, 1, 70, 3}}));
}

TEST(AttentionGradients, OfWindows) {
  for (const int window : {1, 7, 64, 70, 200}) {
    expect_gradients_on_all(gradient_case(
        {"window " + std::to_string(window),
         rule_of(2, 2, 8),
         {100, 20},
         window}));
  }
}

TEST(AttentionGradients, OfCappedScores) {
  AttentionRule rule = rule_of(4, 2, 8);
  rule.scores.softcap = 1.5f;
  expect_gradients_on_all(gradient_case({"capped", rule, {70}}));
  expect_gradients_on_all(gradient_case({"capped window", rule, {70}, 9}));
}

TEST(AttentionGradients, OfGates) {
  AttentionRule rule = rule_of(4, 2, 8);
  rule.has_output_gate = true;
  expect_gradients_on_all(gradient_case({"gated", rule, {66, 4}}));
}

TEST(AttentionGradients, OfNormsAndRope) {
  for (const bool interleaved : {false, true}) {
    AttentionRule rule = rule_of(4, 2, 16);
    rule.norm_eps = 1e-3f;
    rule.rope = Rope{
        .inverse_frequencies = inverse_frequencies(100, 12),
        .is_interleaved = interleaved,
        .scale = 1.25f};
    expect_gradients_on_all(gradient_case({"rope", rule, {20}}));
    rule.q_norm = normal_array({16}, 50);
    rule.k_norm = normal_array({16}, 51);
    rule.v_norm = normal_array({16}, 52);
    expect_gradients_on_all(gradient_case({"norms of heads", rule, {20, 5}}));
    rule.q_norm = normal_array({4 * 16}, 50);
    rule.k_norm = normal_array({2 * 16}, 51);
    rule.v_norm.reset();
    expect_gradients_on_all(gradient_case({"norms of rows", rule, {20, 5}}));
  }
}

TEST(AttentionGradients, OfGrowth) {
  AttentionRule rule = rule_of(2, 1, 8);
  rule.query_growth = QueryGrowth{.beta = 0.5, .period = 4};
  rule.rope = Rope{
      .inverse_frequencies = inverse_frequencies(100, 8),
      .growth = Rope::Growth{.theta = 100, .factor = 2, .positions = 10}};
  expect_gradients_on_all(gradient_case({"growth", rule, {30}}));
}

TEST(AttentionGradients, DoNotDependOnThreadsOrNeighbours) {
  const AttentionCase c{"threads", rule_of(6, 2, 64), {90, 130}};
  expect_same_bits_at_any_threads(gradient_case(c));
  // The second sequence alone.
  const GradientCase both = gradient_case(c);
  const mx::array dy = normal_array(both.output, 5);
  const Arrays packed = both.gradients(cpu_device(), dy);
  const std::vector<Segment> alone{{.first_row = 0, .rows = 130}};
  const auto part = [](const mx::array& x) {
    return testing::rows_of(x, 90, 130);
  };
  const AttentionGradients own = cpu_device().gradients().attend(
      part(dy),
      part(both.inputs[0]),
      part(both.inputs[1]),
      part(both.inputs[2]),
      c.rule,
      alone,
      0);
  const Arrays expected{own.q, own.k, own.v};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(testing::same_bits(
        io::floats(part(packed[i])), io::floats(expected[i])));
  }
}

TEST(AttentionGradients, RefuseThePast) {
  const mx::array x = normal_array({2, 8}, 1);
  const std::vector<Segment> segments{{.first_row = 0, .rows = 2, .start = 3}};
  for (Device* device : {&cpu_device(), &mlx_device()}) {
    optiq::test::expect_error(
        ErrorKind::InvalidInput, {"position 3", "whole sequences"}, [&] {
          device->gradients().attend(x, x, x, x, rule_of(1, 1, 8), segments, 0);
        });
  }
}

} // namespace
} // namespace optiq::kernels
