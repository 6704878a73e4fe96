#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "support/cpu_operations.h"
#include "support/kernel_checks.h"

#include "optiq/io/array.h"
#include "optiq/kernels/cpu/block_memory.h"

/** Attention over dense caches in double precision, with the error that the
 * kernels may make. */
namespace optiq::kernels::dense_oracle {

namespace mx = mlx::core;
using testing::kUnit;
using testing::normal_array;
using testing::rows_of;

struct Case {
  int n_heads;
  int n_kv_heads;
  int head_dim;
  mx::Dtype dtype;
  int window = 0;
  float softcap = 0.f;

  float scale() const {
    return 1.0f / std::sqrt(static_cast<float>(head_dim));
  }
  ScoreRule rule() const {
    return {.scale = scale(), .softcap = softcap};
  }
  KvFormat format() const {
    return make_kv_format(
        {.dtype = dtype,
         .n_kv_heads = n_kv_heads,
         .head_dim = head_dim,
         .window = window});
  }
  int first_seen(int position) const {
    return window == 0 ? 0 : std::max(0, position - window + 1);
  }
};

/** Blocks of one sequence, as a recycled block may look: all bytes `garbage`,
 * 0xff being NaN in both formats. */
class Blocks {
 public:
  Blocks(const Case& c, int tokens, unsigned char garbage = 0xff) {
    const int n = (tokens + kKvBlockTokens - 1) / kKvBlockTokens;
    for (int i = 0; i < n; ++i) {
      memory_.emplace_back(
          c.format().block_bytes(), static_cast<std::byte>(garbage));
      ids_.push_back(cpu::id_of(memory_.back().data()));
    }
  }
  std::span<const BlockId> span() const {
    return ids_;
  }
  /** Drops the blocks that only hold tokens before `position`. */
  void drop_before(int position) {
    std::fill_n(ids_.begin(), position / kKvBlockTokens, BlockId::None);
  }

 private:
  std::vector<std::vector<std::byte>> memory_;
  std::vector<BlockId> ids_;
};

struct Inputs {
  mx::array q;
  mx::array k;
  mx::array v;

  Inputs(const Case& c, int tokens, unsigned seed)
      : q(normal_array({tokens, c.n_heads, c.head_dim}, seed)),
        k(normal_array({tokens, c.n_kv_heads, c.head_dim}, seed + 1)),
        v(normal_array({tokens, c.n_kv_heads, c.head_dim}, seed + 2)) {}
};

inline mx::array append(
    const Case& c,
    const Inputs& in,
    const Blocks& blocks,
    int start,
    int rows) {
  const std::vector<Segment> segments{
      {.first_row = 0, .rows = rows, .start = start, .blocks = blocks.span()}};
  return append_and_attend(
      rows_of(in.q, start, rows),
      rows_of(in.k, start, rows),
      rows_of(in.v, start, rows),
      segments,
      c.format(),
      c.rule());
}

/** Outputs of all tokens when they arrive in chunks of these sizes; a window's
 * blocks go as soon as no later row sees them. */
std::vector<float>
run_chunks(const Case& c, const Inputs& in, const std::vector<int>& chunks) {
  Blocks blocks(c, in.q.shape(0));
  std::vector<float> out;
  int start = 0;
  for (const int rows : chunks) {
    blocks.drop_before(c.first_seen(start));
    const mx::array y = append(c, in, blocks, start, rows);
    out.insert(out.end(), io::floats(y).begin(), io::floats(y).end());
    start += rows;
  }
  return out;
}

/** What the cache holds of x, as float32. */
std::vector<float> stored(const Case& c, const mx::array& x) {
  mx::array y = mx::astype(mx::astype(x, c.dtype), mx::float32);
  mx::eval(y);
  return {io::floats(y).begin(), io::floats(y).end()};
}

/** The nearest bfloat16, ties to even. */
inline double nearest_bf16(double x) {
  int exponent = 0;
  const double fraction = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8);
}

/** Scores of one query in double, with a bound of their error. */
struct Scores {
  std::vector<double> s; // by token; none before `first`
  int first = 0;
  /** Of the worst, in a chain of D products in float32; a cap adds the few
   * roundings of (1 - e) / (1 + e), each of the size of the cap. */
  double error = 0.0;
};

inline Scores score_in_double(
    const Case& c,
    const float* q,
    const std::vector<float>& k,
    int t,
    int kv) {
  const int dim = c.head_dim;
  std::vector<double> scaled(dim);
  for (int i = 0; i < dim; ++i) {
    scaled[i] = c.dtype == mx::bfloat16 ? nearest_bf16(q[i] * c.scale())
                                        : double{q[i]} * c.scale();
  }
  Scores scores;
  scores.s.resize(t + 1);
  scores.first = c.first_seen(t);
  for (int s = scores.first; s <= t; ++s) {
    double size = 0.0;
    for (int i = 0; i < dim; ++i) {
      const double product = scaled[i] * k[(s * c.n_kv_heads + kv) * dim + i];
      scores.s[s] += product;
      size += std::abs(product);
    }
    scores.error = std::max(scores.error, (dim + 2) * kUnit * size);
    if (c.softcap > 0) {
      const double cap = c.softcap;
      scores.s[s] = cap * std::tanh(scores.s[s] / cap);
    }
  }
  scores.error += 8 * kUnit * c.softcap;
  return scores;
}

/** Weights of a query before they are divided by their sum. */
struct Weights {
  std::vector<double> p;
  std::vector<double> slack; // how far p may be off by its rounding
  double sum = 0.0;
  double slack_sum = 0.0;
};

/**
 * exp of the scores. Of bfloat16 caches it is rounded against the largest score
 * of its span of 256 tokens: known exactly, unless the error of the kernel's p
 * (twice that of a score, the difference and exp) reaches over the middle of
 * two bfloat16.
 */
inline Weights weigh_in_double(const Case& c, const Scores& scores) {
  const auto largest = [&](int from, int to) {
    return *std::max_element(scores.s.begin() + from, scores.s.begin() + to);
  };
  const int end = static_cast<int>(scores.s.size());
  const double top = largest(scores.first, end);
  Weights w{std::vector<double>(end), std::vector<double>(end)};
  for (int t = scores.first; t < end; ++t) {
    const int span = t / 256 * 256;
    const double span_top =
        largest(std::max(scores.first, span), std::min(end, span + 256));
    const double x = scores.s[t] - span_top;
    double low = std::exp(x);
    double high = low;
    if (c.dtype == mx::bfloat16) {
      const double off = std::expm1(2 * scores.error + 2 * (4 - x) * kUnit);
      low = nearest_bf16(low * (1 - off));
      high = nearest_bf16(high * (1 + off));
    }
    const double rescale = std::exp(span_top - top);
    w.p[t] = rescale * (low + high) / 2;
    w.slack[t] = rescale * (high - low) / 2;
    w.sum += w.p[t];
    w.slack_sum += w.slack[t];
  }
  return w;
}

struct Oracle {
  std::vector<double> y;
  std::vector<double> bound; // on the error of a float32 result
};

/**
 * The softmax in double, with the cache's roundings of queries and weights, and
 * a bound of the error in float32: that of a score shifts log p twice
 * (numerator, denominator); exp, the online rescaling (three roundings per
 * block) and the chain over S values add S + 3 S/64 + 16 units.
 */
inline Oracle attend_in_double(const Case& c, const Inputs& in) {
  const int tokens = in.q.shape(0);
  const int dim = c.head_dim;
  const std::span<const float> q = io::floats(in.q);
  const std::vector<float> k = stored(c, in.k);
  const std::vector<float> v = stored(c, in.v);
  Oracle oracle;
  for (int t = 0; t < tokens; ++t) {
    for (int h = 0; h < c.n_heads; ++h) {
      const int kv = h / (c.n_heads / c.n_kv_heads);
      const float* qh = q.data() + (t * c.n_heads + h) * dim;
      const Scores scores = score_in_double(c, qh, k, t, kv);
      const Weights w = weigh_in_double(c, scores);
      const double relative = std::expm1(2 * scores.error) +
          (t + 1 + 3 * (t / 64 + 1) + 16) * kUnit;
      for (int i = 0; i < dim; ++i) {
        double y = 0.0;
        double size = 0.0;
        double slack = 0.0;
        for (int s = scores.first; s <= t; ++s) {
          const double value = v[(s * c.n_kv_heads + kv) * dim + i];
          y += w.p[s] / w.sum * value;
          size += w.p[s] / w.sum * std::abs(value);
          slack += w.slack[s] * std::abs(value);
        }
        slack += std::abs(y) * w.slack_sum;
        oracle.y.push_back(y);
        oracle.bound.push_back(relative * size + slack / (w.sum - w.slack_sum));
      }
    }
  }
  return oracle;
}

inline void expect_close(
    std::span<const float> y,
    const Oracle& oracle,
    double times = 1.0) {
  ASSERT_EQ(y.size(), oracle.y.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    // Written so that NaN fails.
    if (!(std::abs(y[i] - oracle.y[i]) <= times * oracle.bound[i])) {
      FAIL() << "element " << i << ": " << y[i] << " against " << oracle.y[i]
             << ", bound " << oracle.bound[i];
    }
  }
}

} // namespace optiq::kernels::dense_oracle
