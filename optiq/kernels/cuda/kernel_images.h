#pragma once

#include <span>
#include <string_view>

namespace optiq::kernels::cuda {

/** The kernels of this build, as the driver loads them: fat binaries. None
 * where it was built without nvcc (no_cuda.cpp). */
std::span<const std::string_view> kernel_images();

} // namespace optiq::kernels::cuda
