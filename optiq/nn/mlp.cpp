#include "optiq/nn/mlp.h"

namespace optiq::nn {

mx::array
run_mlp(const Mlp& mlp, const BlockInput& input, kernels::Compute compute) {
  const mx::array hidden = kernels::matmul_glu(
      input.x,
      mlp.gate_proj.weight,
      mlp.up_proj.weight,
      mlp.activation,
      compute,
      &input.norm);
  return project_back(hidden, mlp.down_proj, input, compute);
}

} // namespace optiq::nn
