#include "optiq/nn/mlp.h"

namespace optiq::nn {

mx::array
run_mlp(const Mlp& mlp, const BlockInput& input, kernels::Compute compute) {
  if (mlp.activation == Activation::Silu) {
    const mx::array hidden = kernels::matmul_swiglu(
        input.x,
        mlp.gate_proj.weight,
        mlp.up_proj.weight,
        compute,
        &input.norm);
    return project_back(hidden, mlp.down_proj, input, compute);
  }
  const auto hidden = project(input, {&mlp.gate_proj, &mlp.up_proj}, compute);
  return project_back(
      kernels::geglu(hidden[0], hidden[1]), mlp.down_proj, input, compute);
}

} // namespace optiq::nn
