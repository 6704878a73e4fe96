#include "optiq/nn/linear.h"

namespace optiq::nn {
namespace {

/** What the adapters of a batch add to a linear. */
std::vector<kernels::LowRankUpdate> updates_of(
    const Linear& linear,
    const ForwardContext& context) {
  std::vector<kernels::LowRankUpdate> updates;
  updates.reserve(context.segments.size());
  for (const Segment& segment : context.segments) {
    if (segment.adapter == nullptr || segment.rows == 0) {
      continue;
    }
    const auto found = segment.adapter->updates.find(linear.name);
    if (found != segment.adapter->updates.end()) {
      const LowRank& change = found->second;
      updates.push_back(
          {.first_row = segment.first_row,
           .rows = segment.rows,
           .a = change.a,
           .b = change.b,
           .scale = change.scale});
    }
  }
  return updates;
}

/** Projections of norm(x) by these linears, which the context's observer is
 * shown, with what its adapters add. */
class Projections {
 public:
  Projections(
      const std::vector<const Linear*>& linears,
      const mx::array& x,
      const kernels::Norm* norm,
      const ForwardContext& context)
      : updates_(linears.size()) {
    product.norm = norm;
    product.compute = context.compute;
    for (std::size_t i = 0; i < linears.size(); ++i) {
      const Linear& linear = *linears[i];
      updates_[i] = updates_of(linear, context);
      product.projections.push_back(
          {.weight = &linear.weight,
           .bias = linear.bias ? &*linear.bias : nullptr,
           .updates = updates_[i]});
    }
    if (context.observer) {
      const mx::array rows =
          norm == nullptr ? x : context.device->normalize(x, *norm);
      for (const Linear* linear : linears) {
        context.observer(*linear, rows);
      }
    }
  }
  Projections(const Projections&) = delete;
  Projections& operator=(const Projections&) = delete;

  kernels::Product product;

 private:
  std::vector<std::vector<kernels::LowRankUpdate>> updates_; // by projection
};

} // namespace

std::vector<mx::array> project(
    const BlockInput& input,
    const std::vector<const Linear*>& linears,
    const ForwardContext& context) {
  const Projections projections(linears, input.x, input.norm, context);
  return context.device->multiply(input.x, projections.product);
}

mx::array project_gated(
    const BlockInput& input,
    const Linear& gate,
    const Linear& up,
    kernels::Activation activation,
    const ForwardContext& context) {
  Projections projections({&gate, &up}, input.x, input.norm, context);
  projections.product.activation = activation;
  return context.device->multiply(input.x, projections.product).front();
}

mx::array project_back(
    const mx::array& y,
    const Linear& linear,
    const BlockInput& input,
    const ForwardContext& context) {
  Projections projections({&linear}, y, nullptr, context);
  projections.product.residual = input.residual;
  return context.device->multiply(y, projections.product).front();
}

} // namespace optiq::nn
