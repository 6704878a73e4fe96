#pragma once

#include <string>

namespace optiq::io {

/** Version of the MLX headers that OptIQ was compiled with: "0.32.4". */
std::string built_mlx_version();
/** Version of the libmlx that this process loaded. */
std::string loaded_mlx_version();

/** Throws Unsupported unless both are equal: MLX keeps no ABI between
 * versions, so a mismatch would crash later and elsewhere. */
void check_mlx_version(const std::string& built, const std::string& loaded);

} // namespace optiq::io
