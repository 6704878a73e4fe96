#include "optiq/nn/gated_delta_net.h"

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
  const auto projected = project(
      input,
      {&net.in_proj_qkv, &net.in_proj_z, &net.in_proj_b, &net.in_proj_a},
      context);
  std::vector<kernels::DeltaNetSegment> segments;
  for (const Segment& segment : context.segments) {
    segments.push_back(
        {.first_row = segment.first_row,
         .rows = segment.rows,
         .conv_state = segment.sequence->conv_state(layer),
         .state = segment.sequence->recurrent_state(layer)});
  }
  const mx::array y = kernels::gated_delta_net(
      projected[0],
      projected[1],
      projected[2],
      projected[3],
      net.weights,
      net.shape,
      segments);
  return project_back(y, net.out_proj, input, context);
}

} // namespace optiq::nn
