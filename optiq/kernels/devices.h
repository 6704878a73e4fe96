#pragma once

#include <string_view>

#include "optiq/kernels/device.h"

namespace optiq::kernels {

/** "cpu", "mlx", or "auto": MLX where it has Metal, else the CPU. Throws
 * InvalidInput for another name. */
Device& find_device(std::string_view name);

/** x of one device on another; x itself where they are the same. */
mx::array transfer(Device& from, const mx::array& x, Device& to);

} // namespace optiq::kernels
