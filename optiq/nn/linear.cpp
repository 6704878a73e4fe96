#include "optiq/nn/linear.h"

namespace optiq::nn {

std::vector<mx::array> project(
    const BlockInput& input,
    const std::vector<const Linear*>& linears,
    kernels::Compute compute) {
  std::vector<const kernels::Matrix*> weights;
  for (const Linear* linear : linears) {
    weights.push_back(&linear->weight);
  }
  return kernels::matmul(input.x, weights, compute, &input.norm);
}

mx::array project_back(
    const mx::array& y,
    const Linear& linear,
    const BlockInput& input,
    kernels::Compute compute) {
  return input.residual == nullptr
      ? kernels::matmul(y, linear.weight, compute)
      : kernels::matmul_add(y, linear.weight, *input.residual, compute);
}

} // namespace optiq::nn
