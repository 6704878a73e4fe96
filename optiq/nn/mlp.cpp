#include "optiq/nn/mlp.h"

namespace optiq::nn {
namespace {

/** activation(gate(x)) * up(x). */
mx::array run_gate(
    const Mlp& mlp,
    const BlockInput& input,
    const ForwardContext& context) {
  if (mlp.up_proj) {
    return project_gated(
        input, mlp.gate_proj, *mlp.up_proj, mlp.activation, context);
  }
  kernels::Device& device = *context.device;
  const mx::array both = project(input, {&mlp.gate_proj}, context).front();
  const int width = both.shape(1) / 2;
  return device.glu(
      device.columns(both, 0, width),
      device.columns(both, width, width),
      mlp.activation);
}

} // namespace

mx::array run_mlp(
    const Mlp& mlp,
    const BlockInput& input,
    const ForwardContext& context) {
  return project_back(
      run_gate(mlp, input, context), mlp.down_proj, input, context);
}

} // namespace optiq::nn
