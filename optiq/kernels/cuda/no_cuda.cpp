#include "optiq/kernels/cuda/kernel_images.h"

namespace optiq::kernels::cuda {

std::span<const std::string_view> kernel_images() {
  return {};
}

} // namespace optiq::kernels::cuda
