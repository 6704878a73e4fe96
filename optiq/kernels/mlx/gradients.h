#pragma once

#include "optiq/kernels/gradients.h"

namespace optiq::kernels::portable {

/** MLX's automatic differentiation of the device's compositions. */
Gradients& gradients();

} // namespace optiq::kernels::portable
