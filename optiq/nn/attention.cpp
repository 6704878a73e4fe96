#include "optiq/nn/attention.h"

#include <algorithm>
#include <cmath>
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

/** Norm, where there is one, of heads or of whole rows: x [T, heads *
 * head_dim] -> [T, heads, head_dim]. */
mx::array norm_heads(
    const Attention& attention,
    const mx::array& x,
    int n_heads,
    const std::optional<mx::array>& norm) {
  const mx::Shape shape{x.shape(0), n_heads, attention.head_dim};
  if (!norm) {
    return io::reshaped(x, shape);
  }
  const bool is_of_heads = norm->shape(0) == attention.head_dim;
  const mx::array y = kernels::rms_norm(
      is_of_heads ? io::reshaped(x, shape) : x, *norm, attention.norm_eps);
  return io::reshaped(y, shape);
}

/** q [T, n_heads, head_dim], grown in place. */
void grow_queries(
    mx::array& q,
    const QueryGrowth& growth,
    std::span<const std::int32_t> positions) {
  const std::size_t width = q.size() / positions.size();
  float* row = io::mutable_floats(q).data();
  for (const std::int32_t position : positions) {
    const int periods = position / growth.period; // whole ones
    const auto factor =
        static_cast<float>(1 + growth.beta * std::log1p(periods));
    std::transform(row, row + width, row, [=](float x) { return x * factor; });
    row += width;
  }
}

struct Projected {
  mx::array q; // [T, n_heads * head_dim (twice with a gate)]
  mx::array k; // [T, n_kv_heads * head_dim]; T = 0 without K/V of its own
  mx::array v; // the same
};

Projected project_heads(
    const Attention& attention,
    const BlockInput& input,
    const ForwardContext& context) {
  const int q_width = attention.n_heads * attention.head_dim;
  const int kv_width = attention.n_kv_heads * attention.head_dim;
  if (attention.is_fused) {
    const mx::array y = project(input, {&attention.q_proj}, context).front();
    return {
        copy_columns(y, 0, q_width),
        copy_columns(y, q_width, kv_width),
        copy_columns(y, q_width + kv_width, kv_width)};
  }
  std::vector<const Linear*> linears{&attention.q_proj};
  if (attention.k_proj) {
    linears.push_back(&*attention.k_proj);
  }
  if (attention.v_proj) {
    linears.push_back(&*attention.v_proj);
  }
  const auto y = project(input, linears, context);
  if (!attention.k_proj) {
    const mx::array none = io::make_array({0, kv_width}, mx::float32);
    return {y[0], none, none};
  }
  return {y[0], y[1], y.back()};
}

} // namespace

cache::LayerFormat kv_format(const Attention& attention, mx::Dtype dtype) {
  if (attention.kv_layer >= 0) {
    return cache::SharedFormat{.layer = attention.kv_layer};
  }
  return kernels::KvFormat{
      .dtype = dtype,
      .n_kv_heads = attention.n_kv_heads,
      .head_dim = attention.head_dim,
      .window = attention.window};
}

mx::array run_attention(
    const Attention& attention,
    int layer,
    const BlockInput& input,
    const ForwardContext& context) {
  const int rows = input.x.shape(0);
  Projected projected = project_heads(attention, input, context);
  std::optional<mx::array> gate;
  if (attention.has_output_gate) {
    std::tie(projected.q, gate) = split_query_and_gate(
        projected.q, attention.n_heads, attention.head_dim);
  }
  const auto place = [&](const mx::array& heads) {
    return heads.shape(0) == 0 || !attention.rope
        ? heads
        : run_rope(*attention.rope, heads, context.positions);
  };
  const int n_kv_heads = attention.n_kv_heads;
  const int kv_layer = attention.kv_layer >= 0 ? attention.kv_layer : layer;
  std::vector<kernels::AttentionSegment> segments;
  for (const Segment& segment : context.segments) {
    segments.push_back(
        {.first_row = segment.first_row,
         .rows = segment.rows,
         .start = segment.start,
         .blocks = segment.sequence->blocks(kv_layer)});
  }
  mx::array q = place(
      norm_heads(attention, projected.q, attention.n_heads, attention.q_norm));
  if (attention.query_growth) {
    grow_queries(q, *attention.query_growth, context.positions);
  }
  mx::array attended = kernels::append_and_attend(
      q,
      place(norm_heads(attention, projected.k, n_kv_heads, attention.k_norm)),
      norm_heads(attention, projected.v, n_kv_heads, attention.v_norm),
      segments,
      std::get<kernels::KvFormat>(
          context.segments.front().sequence->format(kv_layer)),
      attention.scores);
  if (gate) {
    attended = kernels::sigmoid_gate(attended, *gate);
  }
  return project_back(
      io::reshaped(attended, {rows, attention.n_heads * attention.head_dim}),
      attention.o_proj,
      input,
      context);
}

} // namespace optiq::nn
