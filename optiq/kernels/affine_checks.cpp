#include "optiq/kernels/affine_checks.h"

#include <cstdint>
#include <span>
#include <utility>

#include <fmt/ranges.h>

#include "optiq/artifacts/affine_format.h"
#include "optiq/base/error.h"

namespace optiq::kernels {
namespace {

void require_one_of(
    const char* function,
    const char* what,
    std::span<const int> list,
    int value) {
  if (!artifacts::is_one_of(list, value)) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found {}, expected {}.",
        function,
        what,
        value,
        artifacts::list_text(list));
  }
}

} // namespace

void check_affine_format(const char* function, int bits, int group_size) {
  require_one_of(function, "bits", artifacts::kAffineBits, bits);
  require_one_of(
      function, "group_size", artifacts::kAffineGroupSizes, group_size);
}

std::string shape_text(const mx::array& x) {
  return fmt::format("[{}]", fmt::join(x.shape(), ", "));
}

void check_dense_shape(const char* function, const mx::array& weight) {
  if (weight.ndim() != 2 || weight.size() == 0) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] weight: found {}, expected [out, in].",
        function,
        shape_text(weight));
  }
}

void check_affine_shapes(
    const char* function,
    const mx::array& weight,
    const mx::array& scales,
    const mx::array& biases,
    int bits,
    int group_size) {
  check_affine_format(function, bits, group_size);
  if (weight.dtype() != mx::uint32 || weight.ndim() != 2 ||
      weight.size() == 0) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] weight: found {} of {} bytes per element, expected a uint32 "
        "[out, in * bits / 32].",
        function,
        shape_text(weight),
        weight.itemsize());
  }
  const std::int64_t row_bits = std::int64_t{weight.shape(1)} * 32;
  const std::int64_t in = row_bits / bits;
  if (row_bits % bits != 0 || in % group_size != 0) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] weight: found {}, expected rows of whole groups of {} codes of "
        "{} bits. Wrong bits or group_size?",
        function,
        shape_text(weight),
        group_size,
        bits);
  }
  for (const auto& [what, param] :
       {std::pair{"scales", &scales}, std::pair{"biases", &biases}}) {
    if (param->ndim() != 2 || param->shape(0) != weight.shape(0) ||
        param->shape(1) != in / group_size) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] {}: found {}, expected [{}, {}] for weight {} at {} bits in "
          "groups of {}. Wrong bits or group_size?",
          function,
          what,
          shape_text(*param),
          weight.shape(0),
          in / group_size,
          shape_text(weight),
          bits,
          group_size);
    }
  }
  if (scales.dtype() != biases.dtype()) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] biases: found another dtype than that of the scales, expected "
        "the same. Convert one of them.",
        function);
  }
}

void check_float(const char* function, const char* what, mx::Dtype dtype) {
  if (dtype != mx::bfloat16 && dtype != mx::float16 && dtype != mx::float32) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found a dtype of {} bytes that is not a float, expected "
        "bfloat16, float16 or float32. Convert it first.",
        function,
        what,
        static_cast<int>(mx::size_of(dtype)));
  }
}

} // namespace optiq::kernels
