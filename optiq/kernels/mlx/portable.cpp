#include "optiq/kernels/mlx/portable.h"

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

/** `weight` in the dtype of what it meets. */
mx::array as(const mx::array& x, const mx::array& weight) {
  return mx::astype(weight, x.dtype());
}

/** The layout of MLX's fast operations: [L, heads, D] -> [1, heads, L, D]. */
mx::array by_head(const mx::array& x) {
  return mx::expand_dims(mx::transpose(x, {1, 0, 2}), 0);
}

/** Where all positions turn by one table: every row is a batch of its own with
 * its position as offset. */
mx::array rope_by_table(
    const mx::array& x,
    const mx::array& positions,
    const Rope& rope) {
  const auto half = static_cast<int>(rope.inverse_frequencies.size());
  std::vector<float> periods;
  for (const float frequency : rope.inverse_frequencies) {
    periods.push_back(1.f / frequency); // infinite of a pair that stays
  }
  mx::array scaled = x;
  if (rope.scale != 1.f) {
    const std::vector<mx::array> parts = mx::split(x, mx::Shape{2 * half}, -1);
    scaled = mx::concatenate(
        {mx::multiply(parts[0], scalar_of(x, rope.scale)), parts[1]}, -1);
  }
  return mx::squeeze(
      mx::fast::rope(
          mx::expand_dims(scaled, 2),
          2 * half,
          rope.is_interleaved,
          std::nullopt,
          1.f,
          positions,
          mx::array(periods.data(), {half})),
      2);
}

/** By frequencies of every row's own, [T, rotary_dim / 2]. */
mx::array rope_by_row(
    const mx::array& x,
    const mx::array& positions,
    const mx::array& frequencies,
    const Rope& rope) {
  const int half = frequencies.shape(1);
  const mx::array angles = mx::expand_dims(
      mx::multiply(
          mx::expand_dims(mx::astype(positions, mx::float32), 1), frequencies),
      1);
  const mx::array scale(rope.scale);
  const mx::array c = as(x, mx::multiply(mx::cos(angles), scale));
  const mx::array s = as(x, mx::multiply(mx::sin(angles), scale));
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

/** Which of the S tokens each of the last T rows sees: [T, S]. */
mx::array seen_tokens(int rows, int tokens, int window) {
  const mx::array at = mx::expand_dims(mx::arange(tokens - rows, tokens), 1);
  const mx::array token = mx::expand_dims(mx::arange(tokens), 0);
  const mx::array seen = mx::less_equal(token, at);
  return window == 0
      ? seen
      : mx::logical_and(
            seen, mx::greater(token, mx::subtract(at, mx::array(window))));
}

/** MLX's attention knows no softcap. q [1, H, T, D], k and v [1, Hkv, S, D]. */
mx::array attend_capped(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const ScoreRule& rule,
    const mx::array& seen) {
  const int copies = q.shape(1) / k.shape(1);
  const mx::array products =
      mx::matmul(q, mx::swapaxes(mx::repeat(k, copies, 1), 2, 3));
  const mx::array scores =
      softcap(mx::multiply(products, scalar_of(q, rule.scale)), rule.softcap);
  const mx::array hidden =
      scalar_of(q, -std::numeric_limits<float>::infinity());
  const mx::array weights =
      mx::softmax(mx::where(seen, scores, hidden), std::vector<int>{-1}, true);
  return mx::matmul(weights, mx::repeat(v, copies, 1));
}

/** Columns [begin, begin + n * dim) of x [T, C] as [1, T, n, dim]. */
mx::array heads_of(const mx::array& x, int begin, int n, int dim) {
  const int T = x.shape(0);
  return mx::reshape(
      mx::slice(x, {0, begin}, {T, begin + n * dim}), {1, T, n, dim});
}

} // namespace

mx::array scalar_of(const mx::array& x, float value) {
  return mx::array(value, x.dtype());
}

mx::array rms_norm(const mx::array& x, const mx::array& weight, float eps) {
  return mx::fast::rms_norm(x, as(x, weight), eps);
}

mx::array layer_norm(
    const mx::array& x,
    const mx::array& weight,
    float eps,
    const std::optional<mx::array>& bias) {
  return mx::fast::layer_norm(
      x, as(x, weight), bias ? std::optional(as(x, *bias)) : std::nullopt, eps);
}

mx::array add_bias(const mx::array& x, const mx::array& bias) {
  return mx::add(x, as(x, bias));
}

mx::array swiglu(const mx::array& gate, const mx::array& up) {
  return mx::multiply(silu(gate), up);
}

mx::array geglu(const mx::array& gate, const mx::array& up) {
  const mx::array cube = mx::multiply(
      scalar_of(gate, 0.044715f), mx::multiply(gate, mx::square(gate)));
  const mx::array u = mx::multiply(
      scalar_of(gate, 0.7978845608028654f), // sqrt(2 / pi)
      mx::add(gate, cube));
  const mx::array half = mx::multiply(scalar_of(gate, 0.5f), gate);
  return mx::multiply(
      mx::multiply(half, mx::add(scalar_of(gate, 1.f), mx::tanh(u))), up);
}

mx::array
glu(const mx::array& gate, const mx::array& up, Activation activation) {
  return activation == Activation::Silu ? swiglu(gate, up) : geglu(gate, up);
}

mx::array softcap(const mx::array& x, float cap) {
  const mx::array limit = scalar_of(x, cap);
  return mx::multiply(limit, mx::tanh(mx::divide(x, limit)));
}

mx::array sigmoid_gate(const mx::array& x, const mx::array& gate) {
  return mx::multiply(x, mx::sigmoid(gate));
}

mx::array normalize(const mx::array& x, const Norm& norm) {
  return norm.is_layer_norm ? layer_norm(x, norm.weight, norm.eps, norm.bias)
                            : rms_norm(x, norm.weight, norm.eps);
}

mx::array rope(
    const mx::array& x,
    std::span<const std::int32_t> positions,
    const Rope& rope) {
  const auto rows = static_cast<int>(positions.size());
  if (rows == 0 || rope.inverse_frequencies.empty()) {
    return x;
  }
  const mx::array at(positions.data(), mx::Shape{rows}, mx::int32);
  if (uses_table(rope, positions)) {
    return rope_by_table(x, at, rope);
  }
  std::vector<float> frequencies;
  for (const std::int32_t position : positions) {
    const std::vector<float> row = frequencies_at(rope, position);
    frequencies.insert(frequencies.end(), row.begin(), row.end());
  }
  const auto half = static_cast<int>(rope.inverse_frequencies.size());
  return rope_by_row(x, at, mx::array(frequencies.data(), {rows, half}), rope);
}

mx::array attend(
    const mx::array& q,
    const mx::array& keys,
    const mx::array& values,
    const ScoreRule& rule,
    int window) {
  const int rows = q.shape(0);
  const int tokens = keys.shape(0);
  const mx::array queries = by_head(q);
  const mx::array k = by_head(keys);
  const mx::array v = by_head(values);
  const auto back = [](const mx::array& y) {
    return mx::transpose(mx::squeeze(y, 0), {1, 0, 2});
  };
  if (rule.softcap > 0) {
    const mx::array seen = seen_tokens(rows, tokens, window);
    return back(attend_capped(queries, k, v, rule, seen));
  }
  const bool sees_all = window == 0 || tokens <= window;
  if (!sees_all) {
    return back(mx::fast::scaled_dot_product_attention(
        queries, k, v, rule.scale, "", seen_tokens(rows, tokens, window)));
  }
  return back(mx::fast::scaled_dot_product_attention(
      queries, k, v, rule.scale, rows == 1 ? "" : "causal"));
}

DeltaNetResult gated_delta_net(
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    const mx::array& conv_state,
    const mx::array& state) {
  const int T = input.qkv.shape(0);
  const int K = shape.conv_kernel;
  const int Hk = shape.n_key_heads;
  const int Hv = shape.n_value_heads;
  const int Dk = shape.key_dim;
  const int Dv = shape.value_dim;
  const int C = shape.qkv_dim();

  const mx::array in =
      mx::concatenate({as(input.qkv, conv_state), input.qkv}, 0);
  const mx::array taps =
      as(input.qkv, mx::reshape(weights.conv, {C, K, 1})); // one group each
  const mx::array conv = silu(
      mx::squeeze(mx::conv1d(mx::expand_dims(in, 0), taps, 1, 0, 1, C), 0));
  // x / sqrt(sum x^2 + 1e-6) is an RMS norm over sqrt(Dk).
  const auto unit = [&](int begin, float factor) {
    return mx::multiply(
        mx::fast::rms_norm(
            heads_of(conv, begin, Hk, Dk),
            std::nullopt,
            1e-6f / static_cast<float>(Dk)),
        scalar_of(conv, factor));
  };
  const mx::array q = unit(0, 1.f / static_cast<float>(Dk));
  const mx::array k = unit(Hk * Dk, 1.f / std::sqrt(static_cast<float>(Dk)));
  const mx::array v = heads_of(conv, 2 * Hk * Dk, Hv, Dv);
  const mx::array softplus = mx::logaddexp(
      mx::add(mx::astype(input.a, mx::float32), weights.dt_bias),
      mx::array(0.f));
  const mx::array decay =
      mx::exp(mx::negative(mx::multiply(mx::exp(weights.a_log), softplus)));

  const std::vector<mx::array> moved = mx::fast::gated_delta_update(
      q,
      k,
      v,
      mx::expand_dims(decay, 0),
      mx::expand_dims(mx::sigmoid(input.b), 0),
      mx::expand_dims(state, 0));
  const mx::array gated = mx::multiply(
      rms_norm(mx::squeeze(moved[0], 0), weights.norm, weights.norm_eps),
      silu(mx::reshape(input.z, {T, Hv, Dv})));
  return {
      mx::reshape(as(input.qkv, gated), {T, Hv * Dv}),
      mx::contiguous(mx::slice(in, {T, 0}, {T + K - 1, C})), // lets `in` go
      mx::squeeze(moved[1], 0)};
}

} // namespace optiq::kernels::portable
