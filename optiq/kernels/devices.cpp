#include "optiq/kernels/devices.h"

#include <charconv>
#include <memory>
#include <optional>

#include <mlx/backend/metal/metal.h>

#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/io/array.h"
#include "optiq/kernels/cuda/cuda_device.h"
#include "optiq/kernels/mlx/mlx_device.h"

namespace optiq::kernels {
namespace {

/** N of "cuda:N", 0 of "cuda". */
std::optional<int> cuda_index(std::string_view name) {
  constexpr std::string_view kPrefix = "cuda:";
  if (name == "cuda") {
    return 0;
  }
  if (!name.starts_with(kPrefix)) {
    return std::nullopt;
  }
  const std::string_view digits = name.substr(kPrefix.size());
  int index = 0;
  const auto [end, error] =
      std::from_chars(digits.begin(), digits.end(), index);
  if (digits.empty() || error != std::errc{} || end != digits.end() ||
      digits.front() == '-') {
    return std::nullopt;
  }
  return index;
}

} // namespace

bool is_device_name(std::string_view name) {
  return name == "auto" || name == "cpu" || name == "mlx" ||
      cuda_index(name).has_value();
}

Device& find_device(std::string_view name) {
  if (name == "cpu") {
    return cpu_device();
  }
  if (name == "mlx") {
    return mlx_device();
  }
  if (const std::optional<int> index = cuda_index(name)) {
    return cuda_device(*index);
  }
  if (name != "auto") {
    fail(
        ErrorKind::InvalidInput,
        "[find_device] found '{}', expected auto, cpu, mlx, cuda or cuda:N. "
        "Choose one of these.",
        name);
  }
  if (mx::metal::is_available()) {
    return mlx_device();
  }
  return why_no_cuda().empty() ? cuda_device(0) : cpu_device();
}

std::uint64_t available_bytes(const Device& device) {
  const std::optional<std::uint64_t> left = device.own_bytes_left();
  return left ? *left : system_info().available_ram_bytes;
}

void require_bytes(
    const Device& device,
    std::uint64_t needed,
    const std::string& what) {
  const std::optional<std::uint64_t> left = device.own_bytes_left();
  if (!left) {
    require_ram(needed, what);
  } else if (needed > *left) {
    constexpr double kMib = 1 << 20;
    fail(
        ErrorKind::Exhausted,
        "[require_bytes] {}: needs {:.0f} MiB of the memory of device {}, "
        "{:.0f} MiB are left. End other programs there, ask for less, or "
        "choose --device cpu",
        what,
        static_cast<double>(needed) / kMib,
        device.name(),
        static_cast<double>(*left) / kMib);
  }
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
