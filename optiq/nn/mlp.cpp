#include "optiq/nn/mlp.h"

namespace optiq::nn {

mx::array
run_mlp(const Mlp& mlp, const mx::array& x, kernels::Compute compute) {
  const auto hidden = project(x, {&mlp.gate_proj, &mlp.up_proj}, compute);
  const auto gated =
      mlp.activation == Activation::Silu ? kernels::swiglu : kernels::geglu;
  return kernels::matmul(
      gated(hidden[0], hidden[1]), mlp.down_proj.weight, compute);
}

} // namespace optiq::nn
