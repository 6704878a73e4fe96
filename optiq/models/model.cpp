#include "optiq/models/model.h"

namespace optiq::models {

mx::Dtype kv_dtype(kernels::Compute compute) {
  return compute == kernels::Compute::Exact ? mx::float32 : mx::bfloat16;
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
