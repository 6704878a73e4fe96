#include "optiq/nn/attention.h"

#include <variant>
#include <vector>

#include <mlx/ops.h>

#include "optiq/kernels/device.h"

namespace optiq::nn {
namespace {

struct Projected {
  mx::array q; // [T, n_heads * head_dim (twice with a gate)]
  mx::array k; // [T, n_kv_heads * head_dim]; T = 0 without K/V of its own
  mx::array v; // the same
};

Projected project_heads(
    const Attention& attention,
    const BlockInput& input,
    const ForwardContext& context) {
  kernels::Device& device = *context.device;
  const int q_width = attention.rule.n_heads * attention.rule.head_dim;
  const int kv_width = attention.rule.n_kv_heads * attention.rule.head_dim;
  if (attention.is_fused) {
    const mx::array y = project(input, {&attention.q_proj}, context).front();
    return {
        device.columns(y, 0, q_width),
        device.columns(y, q_width, kv_width),
        device.columns(y, q_width + kv_width, kv_width)};
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
    const mx::array none = device.upload(mx::zeros({0, kv_width}, mx::float32));
    return {y[0], none, none};
  }
  return {y[0], y[1], y.back()};
}

/** Consecutive segments whose K/V are kept in one format. */
struct FormatRun {
  const kernels::KvFormat* format = nullptr;
  std::size_t first = 0; // segment
  std::size_t end = 0;
};

std::vector<FormatRun> runs_of(const ForwardContext& context, int layer) {
  std::vector<FormatRun> runs;
  for (std::size_t i = 0; i < context.segments.size(); ++i) {
    const auto& format = std::get<kernels::KvFormat>(
        context.segments[i].sequence->format(layer));
    if (runs.empty() || !cache::is_same(*runs.back().format, format)) {
      runs.push_back({.format = &format, .first = i, .end = i});
    }
    runs.back().end = i + 1;
  }
  return runs;
}

/** Attention of all segments, format by format: the operation takes one. */
mx::array attend(
    const Projected& heads,
    const kernels::AttentionRule& rule,
    int layer,
    const ForwardContext& context) {
  kernels::Device& device = *context.device;
  std::vector<kernels::Segment> segments = segments_of(context, layer);
  const std::vector<FormatRun> runs = runs_of(context, layer);
  if (runs.size() == 1) {
    return device.attend(
        heads.q, heads.k, heads.v, rule, segments, *runs.front().format);
  }
  const bool appends = heads.k.shape(0) > 0;
  std::vector<mx::array> parts;
  for (const FormatRun& run : runs) {
    const auto of_run =
        std::span(segments).subspan(run.first, run.end - run.first);
    const int begin = of_run.front().first_row;
    const int rows = of_run.back().first_row + of_run.back().rows - begin;
    const auto rows_of = [&](const mx::array& x) {
      return device.row_range(x, begin, rows);
    };
    for (kernels::Segment& segment : of_run) {
      segment.first_row -= begin;
    }
    parts.push_back(device.attend(
        rows_of(heads.q),
        appends ? rows_of(heads.k) : heads.k,
        appends ? rows_of(heads.v) : heads.v,
        rule,
        of_run,
        *run.format));
  }
  return device.concatenate(parts);
}

} // namespace

cache::LayerFormat kv_format(
    const Attention& attention,
    mx::Dtype dtype,
    kernels::Device& device) {
  if (attention.kv_layer >= 0) {
    return cache::SharedFormat{.layer = attention.kv_layer};
  }
  return device.kv_format(
      {.dtype = dtype,
       .n_kv_heads = attention.rule.n_kv_heads,
       .head_dim = attention.rule.head_dim,
       .window = attention.window});
}

mx::array run_attention(
    const Attention& attention,
    int layer,
    const BlockInput& input,
    const ForwardContext& context) {
  const int kv_layer = attention.kv_layer >= 0 ? attention.kv_layer : layer;
  const Projected heads = project_heads(attention, input, context);
  const mx::array attended = attend(heads, attention.rule, kv_layer, context);
  return project_back(attended, attention.o_proj, input, context);
}

} // namespace optiq::nn
