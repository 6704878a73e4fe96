#pragma once

#include <mlx/array.h>

namespace optiq::io {

namespace mx = mlx::core;

/** The same where a limit of memory can let go of it (RamLimit::spill); x
 * itself where there is none, where x is of a file already, or small. */
mx::array spilled(const mx::array& x);

} // namespace optiq::io
