#include "optiq/models/model.h"

#include <utility>

#include "optiq/io/array.h"

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

mx::array Model::run_last_layer(
    const mx::array& x,
    std::span<const int> wanted,
    const nn::ForwardContext& context) const {
  return io::take_rows(run_layer(info().n_layers - 1, x, context), wanted);
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

mx::array run_layers_for(
    const Model& model,
    std::span<const int> wanted,
    mx::array x,
    const nn::ForwardContext& context) {
  for (int layer = 0; layer + 1 < model.info().n_layers; ++layer) {
    x = model.run_layer(layer, x, context);
  }
  return model.run_last_layer(x, wanted, context);
}

} // namespace optiq::models
