#include "optiq/nn/linear.h"

namespace optiq::nn {
namespace {

/** Projections of norm(x), which the context's observer is shown. */
kernels::Product product_of(
    const std::vector<const Linear*>& linears,
    const mx::array& x,
    const kernels::Norm* norm,
    const ForwardContext& context) {
  kernels::Product product{
      .projections = {}, .norm = norm, .compute = context.compute};
  for (const Linear* linear : linears) {
    product.projections.push_back(
        {.weight = &linear->weight,
         .bias = linear->bias ? &*linear->bias : nullptr,
         .updates = {}});
  }
  if (context.observer) {
    const mx::array rows =
        norm == nullptr ? x : context.device->normalize(x, *norm);
    for (const Linear* linear : linears) {
      context.observer(*linear, rows);
    }
  }
  return product;
}

} // namespace

std::vector<mx::array> project(
    const BlockInput& input,
    const std::vector<const Linear*>& linears,
    const ForwardContext& context) {
  return context.device->multiply(
      input.x, product_of(linears, input.x, input.norm, context));
}

mx::array project_gated(
    const BlockInput& input,
    const Linear& gate,
    const Linear& up,
    kernels::Activation activation,
    const ForwardContext& context) {
  kernels::Product product =
      product_of({&gate, &up}, input.x, input.norm, context);
  product.activation = activation;
  return context.device->multiply(input.x, product).front();
}

mx::array project_back(
    const mx::array& y,
    const Linear& linear,
    const BlockInput& input,
    const ForwardContext& context) {
  kernels::Product product = product_of({&linear}, y, nullptr, context);
  product.residual = input.residual;
  return context.device->multiply(y, product).front();
}

} // namespace optiq::nn
