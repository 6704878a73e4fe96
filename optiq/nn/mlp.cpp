#include "optiq/nn/mlp.h"

namespace optiq::nn {
namespace {

/** activation(gate(x)) * up(x), step by step. */
mx::array run_gate(
    const Mlp& mlp,
    const BlockInput& input,
    const ForwardContext& context) {
  std::vector<mx::array> parts;
  if (mlp.up_proj) {
    parts = project(input, {&mlp.gate_proj, &*mlp.up_proj}, context);
  } else {
    const mx::array both = project(input, {&mlp.gate_proj}, context).front();
    const int width = both.shape(1) / 2;
    parts = {copy_columns(both, 0, width), copy_columns(both, width, width)};
  }
  return mlp.activation == kernels::Activation::Silu
      ? kernels::swiglu(parts[0], parts[1])
      : kernels::geglu(parts[0], parts[1]);
}

/** The same in one operation, of linears without biases. */
mx::array run_plain_gate(
    const Mlp& mlp,
    const BlockInput& input,
    const ForwardContext& context) {
  const Linear* const linears[] = {&mlp.gate_proj, &*mlp.up_proj};
  observe_input(input, linears, context);
  return kernels::matmul_glu(
      input.x,
      mlp.gate_proj.weight,
      mlp.up_proj->weight,
      mlp.activation,
      context.compute,
      input.norm);
}

} // namespace

mx::array run_mlp(
    const Mlp& mlp,
    const BlockInput& input,
    const ForwardContext& context) {
  const bool is_plain =
      mlp.up_proj && !mlp.gate_proj.bias && !mlp.up_proj->bias;
  const mx::array hidden = is_plain ? run_plain_gate(mlp, input, context)
                                    : run_gate(mlp, input, context);
  return project_back(hidden, mlp.down_proj, input, context);
}

} // namespace optiq::nn
