#include "optiq/nn/attention.h"

#include <algorithm>
#include <tuple>
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

/** Norm, where there is one, then RoPE: x [T, heads * head_dim] -> [T, heads,
 * head_dim]. */
mx::array place_heads(
    const Attention& attention,
    const mx::array& x,
    int n_heads,
    const std::optional<mx::array>& norm,
    const ForwardContext& context) {
  const mx::array heads =
      io::reshaped(x, {x.shape(0), n_heads, attention.head_dim});
  return kernels::rope(
      norm ? kernels::rms_norm(heads, *norm, attention.norm_eps) : heads,
      context.positions,
      attention.inverse_frequencies);
}

} // namespace

kernels::KvFormat kv_format(const Attention& attention, mx::Dtype dtype) {
  return {
      .dtype = dtype,
      .n_kv_heads = attention.n_kv_heads,
      .head_dim = attention.head_dim,
      .window = attention.window};
}

mx::array run_attention(
    const Attention& attention,
    int layer,
    const mx::array& x,
    const ForwardContext& context) {
  const int rows = x.shape(0);
  const auto projected = project(
      x,
      {&attention.q_proj, &attention.k_proj, &attention.v_proj},
      context.compute);
  mx::array q = projected[0];
  std::optional<mx::array> gate;
  if (attention.has_output_gate) {
    std::tie(q, gate) =
        split_query_and_gate(q, attention.n_heads, attention.head_dim);
  }
  std::vector<kernels::AttentionSegment> segments;
  for (const Segment& segment : context.segments) {
    segments.push_back(
        {.first_row = segment.first_row,
         .rows = segment.rows,
         .start = segment.start,
         .blocks = segment.sequence->blocks(layer)});
  }
  mx::array attended = kernels::append_and_attend(
      place_heads(attention, q, attention.n_heads, attention.q_norm, context),
      place_heads(
          attention,
          projected[1],
          attention.n_kv_heads,
          attention.k_norm,
          context),
      io::reshaped(
          projected[2], {rows, attention.n_kv_heads, attention.head_dim}),
      segments,
      std::get<kernels::KvFormat>(
          context.segments.front().sequence->format(layer)),
      attention.scale);
  if (gate) {
    attended = kernels::sigmoid_gate(attended, *gate);
  }
  return kernels::matmul(
      io::reshaped(attended, {rows, attention.n_heads * attention.head_dim}),
      attention.o_proj.weight,
      context.compute);
}

} // namespace optiq::nn
