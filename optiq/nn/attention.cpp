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
  const mx::array attended = context.device->attend(
      heads.q,
      heads.k,
      heads.v,
      attention.rule,
      segments_of(context, kv_layer),
      std::get<kernels::KvFormat>(
          context.segments.front().sequence->format(kv_layer)));
  return project_back(attended, attention.o_proj, input, context);
}

} // namespace optiq::nn
