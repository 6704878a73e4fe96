#pragma once

#include <cstddef>
#include <string_view>

#include <fmt/ranges.h>

#include "optiq/base/error.h"
#include "optiq/io/array.h"

/** Argument checks of the sequence ops; the kernels below trust their input. */
namespace optiq::kernels {

namespace mx = mlx::core;

/** `x` evaluated and row-contiguous; throws InvalidInput unless it is float32
 * of this shape. */
inline mx::array require_floats(
    std::string_view function,
    std::string_view name,
    const mx::array& x,
    const mx::Shape& shape) {
  if (x.dtype() != mx::float32 || x.shape() != shape) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found {} elements of {} bytes in shape [{}], expected "
        "float32 [{}]. Pass a matching array.",
        function,
        name,
        x.size(),
        x.itemsize(),
        fmt::join(x.shape(), ", "),
        fmt::join(shape, ", "));
  }
  return io::materialize(x);
}

/** Throws InvalidInput unless `x` is float32 with this many axes. */
inline void require_rank(
    std::string_view function,
    std::string_view name,
    const mx::array& x,
    std::size_t rank) {
  if (x.dtype() != mx::float32 || x.ndim() != rank) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found elements of {} bytes in shape [{}], expected float32 "
        "with {} axes. Pass a matching array.",
        function,
        name,
        x.itemsize(),
        fmt::join(x.shape(), ", "),
        rank);
  }
}

} // namespace optiq::kernels
