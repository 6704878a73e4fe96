#include "optiq/io/mlx_version.h"

#include <mlx/version.h>

#include "optiq/base/error.h"

namespace optiq::io {

std::string built_mlx_version() {
  return fmt::format(
      "{}.{}.{}", MLX_VERSION_MAJOR, MLX_VERSION_MINOR, MLX_VERSION_PATCH);
}

std::string loaded_mlx_version() {
  return mlx::core::version();
}

void check_mlx_version(const std::string& built, const std::string& loaded) {
  if (built != loaded) {
    fail(
        ErrorKind::Unsupported,
        "[check_mlx_version] libmlx: found version {}, expected {}, with which "
        "optiq was built. Run scripts/setup and build again.",
        loaded,
        built);
  }
}

} // namespace optiq::io
