#pragma once

#include <fmt/ranges.h>
#include <mlx/array.h>

#include "optiq/base/error.h"
#include "optiq/kernels/affine_checks.h"

/** Argument checks of devices whose arrays are not looked into. MLX checks most
 * shapes itself, but broadcasts where we would not, and no index: one out of
 * range is a fault. */
namespace optiq::kernels {

namespace mx = mlx::core;

inline void require_shape(
    const char* function,
    const char* name,
    const mx::array& x,
    const mx::Shape& shape) {
  if (x.shape() != shape) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found {}, expected [{}]. Pass a matching array.",
        function,
        name,
        shape_text(x),
        fmt::join(shape, ", "));
  }
}

/** Throws InvalidInput unless 0 <= begin, 0 <= n and begin + n <= size. */
inline void check_range(
    const char* function,
    const char* name,
    int begin,
    int n,
    int size) {
  if (begin < 0 || n < 0 || begin > size - n) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found {} + {}, expected a range within {}. Pass another.",
        function,
        name,
        begin,
        n,
        size);
  }
}

/** [T, n] of x [T, n * width]. Throws InvalidInput unless x is such. */
inline mx::Shape
summed_shape(const char* function, const mx::array& x, int width) {
  if (x.ndim() != 2 || width < 1 || x.shape(1) % width != 0) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] found {}, expected rows of a multiple of {} columns.",
        function,
        shape_text(x),
        width);
  }
  return {x.shape(0), x.shape(1) / width};
}

} // namespace optiq::kernels
