#include "optiq/nn/linear.h"

namespace optiq::nn {

std::vector<mx::array> project(
    const mx::array& x,
    const std::vector<const Linear*>& linears,
    kernels::Compute compute) {
  std::vector<const kernels::Matrix*> weights;
  for (const Linear* linear : linears) {
    weights.push_back(&linear->weight);
  }
  return kernels::matmul(x, weights, compute);
}

} // namespace optiq::nn
