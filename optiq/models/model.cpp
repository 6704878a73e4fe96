#include "optiq/models/model.h"

#include <utility>

namespace optiq::models {

mx::Dtype kv_dtype(kernels::Compute compute) {
  return compute == kernels::Compute::Exact ? mx::float32 : mx::bfloat16;
}

nn::ForwardContext make_context(
    const Model& model,
    std::span<const std::int32_t> tokens,
    std::vector<nn::Segment> segments,
    kernels::Compute compute) {
  nn::ForwardContext context =
      nn::make_forward_context(std::move(segments), compute);
  context.layer_inputs = model.layer_inputs(tokens, compute);
  return context;
}

mx::array run_layers(
    const Model& model,
    int first,
    mx::array x,
    const nn::ForwardContext& context) {
  for (int layer = first; layer < model.info().n_layers; ++layer) {
    x = model.run_layer(layer, x, context);
  }
  return x;
}

} // namespace optiq::models
