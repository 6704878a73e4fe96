#include "optiq/models/model.h"

namespace optiq::models {

mx::array Model::run_last_layer(
    const mx::array& x,
    std::span<const int> wanted,
    const nn::ForwardContext& context) const {
  return device().take_rows(run_layer(info().n_layers - 1, x, context), wanted);
}

} // namespace optiq::models
