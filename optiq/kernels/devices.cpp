#include "optiq/kernels/devices.h"

#include <memory>

#include <mlx/backend/metal/metal.h>

#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/kernels/mlx/mlx_device.h"

namespace optiq::kernels {

Device& find_device(std::string_view name) {
  if (name == "cpu") {
    return cpu_device();
  }
  if (name == "mlx") {
    return mlx_device();
  }
  if (name != "auto") {
    fail(
        ErrorKind::InvalidInput,
        "[find_device] found '{}', expected auto, cpu or mlx. Choose one of "
        "these.",
        name);
  }
  return mx::metal::is_available() ? mlx_device() : cpu_device();
}

mx::array transfer(Device& from, const mx::array& x, Device& to) {
  if (&from == &to) {
    return x;
  }
  const auto rows = std::make_shared<HostRows>(from.to_host(x));
  return to.upload(
      io::view_array(rows->all().data(), x.shape(), mx::float32, rows));
}

} // namespace optiq::kernels
