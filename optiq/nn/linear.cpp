#include "optiq/nn/linear.h"

#include <algorithm>

#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/variants.h"

namespace optiq::nn {
namespace {

mx::array with_bias(const mx::array& y, const Linear& linear) {
  return linear.bias ? kernels::add_bias(y, *linear.bias) : y;
}

} // namespace

void observe_input(
    const BlockInput& input,
    std::span<const Linear* const> linears,
    const ForwardContext& context) {
  if (!context.observer) {
    return;
  }
  const mx::array rows = input.norm == nullptr
      ? input.x
      : kernels::rms_norm(input.x, input.norm->weight, input.norm->eps);
  for (const Linear* linear : linears) {
    context.observer(*linear, rows);
  }
}

std::vector<mx::array> project(
    const BlockInput& input,
    const std::vector<const Linear*>& linears,
    const ForwardContext& context) {
  observe_input(input, linears, context);
  std::vector<const kernels::Matrix*> weights;
  for (const Linear* linear : linears) {
    weights.push_back(&linear->weight);
  }
  auto y = kernels::matmul(input.x, weights, context.compute, input.norm);
  for (std::size_t i = 0; i < y.size(); ++i) {
    y[i] = with_bias(y[i], *linears[i]);
  }
  return y;
}

mx::array project_back(
    const mx::array& y,
    const Linear& linear,
    const BlockInput& input,
    const ForwardContext& context) {
  const Linear* const linears[] = {&linear};
  observe_input({.x = y}, linears, context);
  const kernels::Compute compute = context.compute;
  return with_bias(
      input.residual == nullptr
          ? kernels::matmul(y, linear.weight, compute)
          : kernels::matmul_add(y, linear.weight, *input.residual, compute),
      linear);
}

mx::array copy_columns(const mx::array& x, int begin, int width) {
  constexpr std::size_t kFloatsPerTask = 16384;
  const int rows = x.shape(0);
  const auto stride = static_cast<std::size_t>(x.shape(1));
  mx::array y = io::make_array({rows, width}, mx::float32);
  const float* from = io::floats(x).data() + begin;
  float* to = io::mutable_floats(y).data();
  parallel_for(
      rows,
      std::max<std::size_t>(1, kFloatsPerTask / width),
      [=](std::size_t first, std::size_t last) {
        for (std::size_t row = first; row < last; ++row) {
          std::copy_n(from + row * stride, width, to + row * width);
        }
      });
  return y;
}

} // namespace optiq::nn
