#include "optiq/nn/norm.h"

#include "optiq/kernels/variants.h"

namespace optiq::nn {

mx::array run_norm(const Norm& norm, const mx::array& x) {
  if (!norm.is_layer_norm) {
    return kernels::rms_norm(x, norm.weight, norm.eps);
  }
  const mx::array y = kernels::layer_norm(x, norm.weight, norm.eps);
  return norm.bias ? kernels::add_bias(y, *norm.bias) : y;
}

} // namespace optiq::nn
