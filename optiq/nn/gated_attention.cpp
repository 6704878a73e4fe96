#include "optiq/nn/gated_attention.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"

namespace optiq::nn {
namespace {

/** [T, n_heads * 2 * head_dim] -> q, gate, each [T, n_heads, head_dim]. */
std::pair<mx::array, mx::array>
split_query_and_gate(const mx::array& x, int n_heads, int head_dim) {
  const int rows = x.shape(0);
  const mx::Shape shape{rows, n_heads, head_dim};
  mx::array q = io::make_array(shape, mx::float32);
  mx::array gate = io::make_array(shape, mx::float32);
  const float* from = io::floats(x).data();
  float* to_q = io::mutable_floats(q).data();
  float* to_gate = io::mutable_floats(gate).data();
  constexpr std::size_t kHeadsPerTask = 64;
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

} // namespace

kernels::KvFormat kv_format(const GatedAttention& attention, mx::Dtype dtype) {
  return {
      .dtype = dtype,
      .n_kv_heads = attention.n_kv_heads,
      .head_dim = attention.head_dim};
}

mx::array run_gated_attention(
    const GatedAttention& attention,
    int layer,
    const mx::array& x,
    const ForwardContext& context) {
  const int rows = x.shape(0);
  const auto projected = project(
      x,
      {&attention.q_proj, &attention.k_proj, &attention.v_proj},
      context.compute);
  auto [q, gate] =
      split_query_and_gate(projected[0], attention.n_heads, attention.head_dim);
  const mx::Shape kv_shape{rows, attention.n_kv_heads, attention.head_dim};
  mx::array k = io::reshaped(projected[1], kv_shape);
  const mx::array v = io::reshaped(projected[2], kv_shape);
  q = kernels::rope(
      kernels::rms_norm(q, attention.q_norm, attention.norm_eps),
      context.positions,
      attention.inverse_frequencies);
  k = kernels::rope(
      kernels::rms_norm(k, attention.k_norm, attention.norm_eps),
      context.positions,
      attention.inverse_frequencies);

  std::vector<kernels::AttentionSegment> segments;
  for (const Segment& segment : context.segments) {
    segments.push_back(
        {.first_row = segment.first_row,
         .rows = segment.rows,
         .start = segment.start,
         .blocks = segment.sequence->blocks(layer)});
  }
  const float scale = 1.f / std::sqrt(static_cast<float>(attention.head_dim));
  const mx::array attended = kernels::append_and_attend(
      q,
      k,
      v,
      segments,
      std::get<kernels::KvFormat>(
          context.segments.front().sequence->format(layer)),
      scale);
  const mx::array gated = kernels::sigmoid_gate(attended, gate);
  return kernels::matmul(
      io::reshaped(gated, {rows, attention.n_heads * attention.head_dim}),
      attention.o_proj.weight,
      context.compute);
}

} // namespace optiq::nn
