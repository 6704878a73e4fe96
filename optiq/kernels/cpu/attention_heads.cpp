#include "optiq/kernels/cpu/attention_heads.h"

#include <algorithm>
#include <cstddef>
#include <tuple>

#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/checks_impl.h"
#include "optiq/kernels/cpu/operations.h"

namespace optiq::kernels::cpu {
namespace {

constexpr std::size_t kHeadsPerTask = 64;

/** Norm, where there is one, of heads or of whole rows: x [T, heads *
 * head_dim] -> [T, heads, head_dim]. */
mx::array norm_heads(
    const AttentionRule& rule,
    const mx::array& x,
    int n_heads,
    const std::optional<mx::array>& weight) {
  const mx::Shape shape{x.shape(0), n_heads, rule.head_dim};
  if (!weight) {
    return io::reshaped(x, shape);
  }
  const bool is_of_heads = weight->shape(0) == rule.head_dim;
  const mx::array y = normalize(
      is_of_heads ? io::reshaped(x, shape) : x, {*weight, rule.norm_eps});
  return io::reshaped(y, shape);
}

} // namespace

Heads make_heads(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const std::int32_t> positions) {
  constexpr const char* kFunction = "attend";
  const int rows = q.ndim() == 0 ? 0 : q.shape(0);
  const int width = rule.n_heads * rule.head_dim;
  const int kv_width = rule.n_kv_heads * rule.head_dim;
  const int kv_rows = k.ndim() == 0 ? 0 : k.shape(0);
  mx::array queries = require_floats(
      kFunction, "q", q, {rows, rule.has_output_gate ? 2 * width : width});
  const mx::array keys = require_floats(kFunction, "k", k, {kv_rows, kv_width});
  const mx::array values =
      require_floats(kFunction, "v", v, {kv_rows, kv_width});
  std::optional<mx::array> gate;
  if (rule.has_output_gate) {
    std::tie(queries, gate) =
        split_query_and_gate(queries, rule.n_heads, rule.head_dim);
  }
  const auto place = [&](const mx::array& heads) {
    return heads.shape(0) == 0 || !rule.rope
        ? heads
        : rope(heads, positions, *rule.rope);
  };
  mx::array placed =
      place(norm_heads(rule, queries, rule.n_heads, rule.q_norm));
  if (rule.query_growth && rows > 0) {
    placed = grow_queries(placed, *rule.query_growth, positions);
  }
  return {
      placed,
      place(norm_heads(rule, keys, rule.n_kv_heads, rule.k_norm)),
      norm_heads(rule, values, rule.n_kv_heads, rule.v_norm),
      gate};
}

std::pair<mx::array, mx::array>
split_query_and_gate(const mx::array& x, int n_heads, int head_dim) {
  const int rows = x.shape(0);
  const mx::Shape shape{rows, n_heads * head_dim};
  mx::array q = io::make_array(shape, mx::float32);
  mx::array gate = io::make_array(shape, mx::float32);
  const float* from = io::floats(x).data();
  float* to_q = io::mutable_floats(q).data();
  float* to_gate = io::mutable_floats(gate).data();
  parallel_for(
      static_cast<std::size_t>(rows) * n_heads,
      kHeadsPerTask,
      [=](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
          const float* head = from + i * 2 * head_dim;
          std::copy_n(head, head_dim, to_q + i * head_dim);
          std::copy_n(head + head_dim, head_dim, to_gate + i * head_dim);
        }
      });
  return {q, gate};
}

mx::array join_query_and_gate(
    const mx::array& q,
    const mx::array& gate,
    int n_heads,
    int head_dim) {
  const int rows = q.shape(0);
  mx::array x = io::make_array({rows, 2 * n_heads * head_dim}, mx::float32);
  const float* from_q = io::floats(q).data();
  const float* from_gate = io::floats(gate).data();
  float* to = io::mutable_floats(x).data();
  parallel_for(
      static_cast<std::size_t>(rows) * n_heads,
      kHeadsPerTask,
      [=](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
          float* head = to + i * 2 * head_dim;
          std::copy_n(from_q + i * head_dim, head_dim, head);
          std::copy_n(from_gate + i * head_dim, head_dim, head + head_dim);
        }
      });
  return x;
}

mx::array grow_queries(
    const mx::array& q,
    const QueryGrowth& growth,
    std::span<const std::int32_t> positions) {
  mx::array grown = io::make_array(q.shape(), mx::float32);
  const std::size_t width = q.size() / positions.size();
  const float* from = io::floats(q).data();
  float* to = io::mutable_floats(grown).data();
  for (const std::int32_t position : positions) {
    const float factor = growth_at(growth, position);
    to = std::transform(
        from, from + width, to, [=](float x) { return x * factor; });
    from += width;
  }
  return grown;
}

} // namespace optiq::kernels::cpu
