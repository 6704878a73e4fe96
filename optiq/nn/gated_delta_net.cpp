#include "optiq/nn/gated_delta_net.h"

#include <utility>

namespace optiq::nn {

cache::RecurrentFormat recurrent_format(const GatedDeltaNet& net) {
  return {
      .conv_floats = net.shape.conv_floats(),
      .state_floats = net.shape.state_floats()};
}

mx::array run_gated_delta_net(
    const GatedDeltaNet& net,
    int layer,
    const BlockInput& input,
    const ForwardContext& context) {
  auto projected = project(
      input,
      {&net.in_proj_qkv, &net.in_proj_z, &net.in_proj_b, &net.in_proj_a},
      context);
  const mx::array y = context.device->gated_delta_net(
      {.qkv = std::move(projected[0]),
       .z = std::move(projected[1]),
       .b = std::move(projected[2]),
       .a = std::move(projected[3])},
      net.weights,
      net.shape,
      segments_of(context, layer));
  return project_back(y, net.out_proj, input, context);
}

} // namespace optiq::nn
