#include "optiq/kernels/portable.h"

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include <mlx/fast.h>
#include <mlx/ops.h>

namespace optiq::kernels::portable {
namespace {

mx::array silu(const mx::array& x) {
  return mx::multiply(x, mx::sigmoid(x));
}

/** x / sqrt(sum x^2 + 1e-6) over the last axis. */
mx::array normalize_head(const mx::array& x) {
  const mx::array sum = mx::sum(mx::square(x), -1, true);
  return mx::multiply(x, mx::rsqrt(mx::add(sum, mx::array(1e-6f))));
}

/** Rows [begin, end) of the first axis. */
mx::array rows(const mx::array& x, int begin, int end) {
  mx::Shape start(x.ndim(), 0);
  mx::Shape stop = x.shape();
  start[0] = begin;
  stop[0] = end;
  return mx::slice(x, start, stop);
}

/** Columns [begin, end) of the last axis of a matrix. */
mx::array columns(const mx::array& x, int begin, int end) {
  return mx::slice(x, {0, begin}, {x.shape(0), end});
}

} // namespace

mx::array matmul(const mx::array& x, const mx::array& weight) {
  return mx::matmul(x, mx::transpose(weight));
}

mx::array matmul(
    const mx::array& x,
    const AffineWeights& weights,
    int bits,
    int group_size) {
  return mx::quantized_matmul(
      x,
      weights.weight,
      weights.scales,
      weights.biases,
      /*transpose=*/true,
      group_size,
      bits);
}

mx::array rms_norm(const mx::array& x, const mx::array& weight, float eps) {
  return mx::fast::rms_norm(x, weight, eps);
}

mx::array layer_norm(const mx::array& x, const mx::array& weight, float eps) {
  return mx::fast::layer_norm(x, weight, std::nullopt, eps);
}

mx::array add_bias(const mx::array& x, const mx::array& bias) {
  return mx::add(x, bias);
}

mx::array swiglu(const mx::array& gate, const mx::array& up) {
  return mx::multiply(silu(gate), up);
}

mx::array geglu(const mx::array& gate, const mx::array& up) {
  const mx::array cube =
      mx::multiply(mx::array(0.044715f), mx::multiply(gate, mx::square(gate)));
  const mx::array u = mx::multiply(
      mx::array(0.7978845608028654f), // sqrt(2 / pi)
      mx::add(gate, cube));
  const mx::array half = mx::multiply(mx::array(0.5f), gate);
  return mx::multiply(
      mx::multiply(half, mx::add(mx::array(1.f), mx::tanh(u))), up);
}

mx::array softcap(const mx::array& x, float cap) {
  const mx::array limit(cap);
  return mx::multiply(limit, mx::tanh(mx::divide(x, limit)));
}

mx::array sigmoid_gate(const mx::array& x, const mx::array& gate) {
  return mx::multiply(x, mx::sigmoid(gate));
}

mx::array
rope(const mx::array& x, const mx::array& positions, const Rope& rope) {
  const auto half = static_cast<int>(rope.inverse_frequencies.size());
  const mx::array frequencies(rope.inverse_frequencies.data(), {half});
  const mx::array angles = mx::expand_dims(
      mx::outer(mx::astype(positions, mx::float32), frequencies), 1);
  const mx::array scale(rope.scale);
  const mx::array c = mx::multiply(mx::cos(angles), scale);
  const mx::array s = mx::multiply(mx::sin(angles), scale);
  const std::vector<mx::array> parts = mx::split(x, mx::Shape{2 * half}, -1);
  // Pairs along an axis of their own, last where they are interleaved.
  const int axis = rope.is_interleaved ? 3 : 2;
  const mx::Shape paired = rope.is_interleaved
      ? mx::Shape{x.shape(0), x.shape(1), half, 2}
      : mx::Shape{x.shape(0), x.shape(1), 2, half};
  const std::vector<mx::array> ab =
      mx::split(mx::reshape(parts[0], paired), 2, axis);
  const mx::array a = mx::squeeze(ab[0], axis);
  const mx::array b = mx::squeeze(ab[1], axis);
  const mx::array turned = mx::stack(
      {mx::subtract(mx::multiply(a, c), mx::multiply(b, s)),
       mx::add(mx::multiply(a, s), mx::multiply(b, c))},
      axis);
  return mx::concatenate({mx::reshape(turned, parts[0].shape()), parts[1]}, -1);
}

mx::array attend(
    const mx::array& q,
    const mx::array& keys,
    const mx::array& values,
    const ScoreRule& rule,
    int window) {
  const int rows = q.shape(0);
  const int tokens = keys.shape(0);
  // [L, heads, D] -> [heads, L, D]
  const auto by_head = [&](const mx::array& x) {
    const mx::array heads = mx::transpose(x, {1, 0, 2});
    return mx::repeat(heads, q.shape(1) / x.shape(1), 0);
  };
  const mx::array at = mx::expand_dims(mx::arange(tokens - rows, tokens), 1);
  const mx::array token = mx::expand_dims(mx::arange(tokens), 0);
  mx::array seen = mx::less_equal(token, at);
  if (window > 0) {
    seen = mx::logical_and(
        seen, mx::greater(token, mx::subtract(at, mx::array(window))));
  }
  mx::array scores = mx::multiply(
      mx::matmul(by_head(q), mx::swapaxes(by_head(keys), 1, 2)),
      mx::array(rule.scale));
  if (rule.softcap > 0) {
    scores = softcap(scores, rule.softcap);
  }
  const mx::array hidden(-std::numeric_limits<float>::infinity());
  const mx::array weights =
      mx::softmax(mx::where(seen, scores, hidden), std::vector<int>{-1}, true);
  return mx::transpose(mx::matmul(weights, by_head(values)), {1, 0, 2});
}

DeltaNetResult gated_delta_net(
    const mx::array& qkv,
    const mx::array& z,
    const mx::array& b,
    const mx::array& a,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    const mx::array& conv_state,
    const mx::array& state) {
  const int T = qkv.shape(0);
  const int K = shape.conv_kernel;
  const int Hk = shape.n_key_heads;
  const int Hv = shape.n_value_heads;
  const int Dk = shape.key_dim;
  const int Dv = shape.value_dim;

  const mx::array in = mx::concatenate({conv_state, qkv}, 0);
  mx::array conv = mx::zeros({T, shape.qkv_dim()}, mx::float32);
  for (int j = 0; j < K; ++j) {
    const mx::array tap = mx::squeeze(columns(weights.conv, j, j + 1), 1);
    conv = mx::add(conv, mx::multiply(rows(in, j, j + T), tap));
  }
  conv = silu(conv);

  const auto heads = [&](int begin, int n, int dim) {
    return mx::reshape(columns(conv, begin, begin + n * dim), {T, n, dim});
  };
  const mx::array q = mx::repeat(
      mx::multiply(
          normalize_head(heads(0, Hk, Dk)),
          mx::array(1.0f / std::sqrt(static_cast<float>(Dk)))),
      Hv / Hk,
      1);
  const mx::array k =
      mx::repeat(normalize_head(heads(Hk * Dk, Hk, Dk)), Hv / Hk, 1);
  const mx::array v = heads(2 * Hk * Dk, Hv, Dv);
  const mx::array beta = mx::sigmoid(b);
  const mx::array softplus =
      mx::logaddexp(mx::add(a, weights.dt_bias), mx::array(0.0f));
  const mx::array decay =
      mx::exp(mx::negative(mx::multiply(mx::exp(weights.a_log), softplus)));

  mx::array S = state; // [Hv, Dk, Dv]
  std::vector<mx::array> outputs;
  for (int t = 0; t < T; ++t) {
    // Row t as [Hv, dim, 1], [Hv, 1, dim] or [Hv, 1, 1].
    const auto row = [&](const mx::array& x, const mx::Shape& to) {
      return mx::reshape(rows(x, t, t + 1), to);
    };
    const mx::array kt = row(k, {Hv, Dk, 1});
    S = mx::multiply(S, row(decay, {Hv, 1, 1}));
    const mx::array memory = mx::sum(mx::multiply(S, kt), 1, true);
    const mx::array delta = mx::multiply(
        row(beta, {Hv, 1, 1}), mx::subtract(row(v, {Hv, 1, Dv}), memory));
    S = mx::add(S, mx::multiply(kt, delta));
    outputs.push_back(mx::reshape(
        mx::sum(mx::multiply(S, row(q, {Hv, Dk, 1})), 1), {1, Hv, Dv}));
  }
  const mx::array y = outputs.empty() ? mx::zeros({0, Hv, Dv}, mx::float32)
                                      : mx::concatenate(outputs, 0);
  const mx::array gated = mx::multiply(
      mx::fast::rms_norm(y, weights.norm, weights.norm_eps),
      silu(mx::reshape(z, {T, Hv, Dv})));
  return {
      mx::reshape(gated, {T, Hv * Dv}), rows(in, T, T + K - 1), std::move(S)};
}

mx::array log_sum_exp(const mx::array& logits) {
  return mx::logsumexp(logits, -1);
}

mx::array kl_divergence(const mx::array& reference, const mx::array& logits) {
  const mx::array lp =
      mx::subtract(reference, mx::logsumexp(reference, -1, true));
  const mx::array lq = mx::subtract(logits, mx::logsumexp(logits, -1, true));
  const mx::array p = mx::exp(lp);
  // A token of zero probability adds nothing, whatever its other logit.
  const mx::array terms = mx::where(
      mx::greater(p, mx::array(0.0f)),
      mx::multiply(p, mx::subtract(lp, lq)),
      mx::array(0.0f));
  return mx::sum(terms, -1);
}

} // namespace optiq::kernels::portable
