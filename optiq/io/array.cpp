#include "optiq/io/array.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <utility>

#include <fmt/ranges.h>
#include <mlx/allocator.h>
#include <mlx/backend/metal/metal.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "optiq/base/error.h"
#include "optiq/base/system.h"

namespace optiq::io {
namespace {

/** MLX's CPU buffers start with a size header that raw_ptr() skips; a view of
 * foreign memory must start that much earlier. */
std::ptrdiff_t header_bytes() {
  static char probe[64];
  mx::allocator::Buffer buffer{probe + 16};
  return static_cast<char*>(buffer.raw_ptr()) - (probe + 16);
}

std::size_t count(const mx::Shape& shape) {
  std::size_t n = 1;
  for (auto dim : shape) {
    n *= static_cast<std::size_t>(dim);
  }
  return n;
}

} // namespace

mx::array make_array(const mx::Shape& shape, mx::Dtype dtype) {
  const std::size_t bytes = count(shape) * mx::size_of(dtype);
  mx::allocator::Data data = mx::allocator::malloc(bytes);
  if (data.buffer().ptr() == nullptr) {
    const std::string what =
        fmt::format("an array of shape [{}]", fmt::join(shape, ", "));
    require_ram(bytes, what); // says both numbers
    fail(
        ErrorKind::Exhausted,
        "[make_array] {}: the system refused {} bytes. Free some RAM, or use a "
        "shorter context or smaller chunks.",
        what,
        bytes);
  }
  return mx::array(std::move(data), shape, dtype);
}

mx::array view_array(
    const void* data,
    const mx::Shape& shape,
    mx::Dtype dtype,
    std::shared_ptr<const void> owner) {
  if (mx::metal::is_available()) {
    // Its buffers are objects: MLX makes one of the memory, or copies it.
    return mx::array(
        const_cast<void*>(data),
        shape,
        dtype,
        [owner = std::move(owner)](void*) {});
  }
  auto* start = static_cast<char*>(const_cast<void*>(data)) - header_bytes();
  return mx::array(
      mx::allocator::Data(
          mx::allocator::Buffer(start),
          [owner = std::move(owner)](mx::allocator::Buffer) {}),
      shape,
      dtype);
}

mx::array materialize(const mx::array& x) {
  mx::array y = x;
  if (!y.is_available()) {
    mx::eval(y);
  }
  if (!y.flags().row_contiguous) {
    y = mx::contiguous(y);
    mx::eval(y);
  }
  return y;
}

mx::array reshaped(const mx::array& x, const mx::Shape& shape) {
  return view_array(
      x.data<char>(), shape, x.dtype(), std::make_shared<mx::array>(x));
}

mx::array row_range(const mx::array& x, int begin, int n) {
  mx::Shape shape = x.shape();
  const std::size_t row_bytes = x.nbytes() / shape[0];
  shape[0] = n;
  return view_array(
      x.data<char>() + row_bytes * begin,
      shape,
      x.dtype(),
      std::make_shared<mx::array>(x));
}

mx::array take_rows(const mx::array& x, std::span<const int> rows) {
  const auto n = static_cast<int>(rows.size());
  if (n > 0 && rows.back() - rows.front() + 1 == n) {
    return n == x.shape(0) ? x : row_range(x, rows.front(), n);
  }
  mx::Shape shape = x.shape();
  shape[0] = n;
  mx::array y = make_array(shape, mx::float32);
  const std::size_t width = n == 0 ? 0 : y.size() / n;
  for (int i = 0; i < n; ++i) {
    std::copy_n(
        floats(x).data() + rows[i] * width,
        width,
        mutable_floats(y).data() + i * width);
  }
  return y;
}

std::span<const float> floats(const mx::array& x) {
  return {x.data<float>(), x.size()};
}

std::span<float> mutable_floats(mx::array& x) {
  return {x.data<float>(), x.size()};
}

} // namespace optiq::io
