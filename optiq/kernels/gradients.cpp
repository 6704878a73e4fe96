#include "optiq/kernels/gradients.h"

#include "optiq/base/error.h"

namespace optiq::kernels {

bool has_gradients(const Device& device) {
  return dynamic_cast<const DifferentiableDevice*>(&device) != nullptr;
}

Gradients& gradients_of(Device& device) {
  auto* differentiable = dynamic_cast<DifferentiableDevice*>(&device);
  if (differentiable == nullptr) {
    fail(
        ErrorKind::Unsupported,
        "[gradients_of] device '{}' computes no gradients. Choose cpu or mlx.",
        device.name());
  }
  return differentiable->gradients();
}

} // namespace optiq::kernels
