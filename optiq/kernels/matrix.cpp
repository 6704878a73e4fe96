#include <span>
#include <utility>

#include "optiq/artifacts/affine_format.h"
#include "optiq/base/error.h"
#include "optiq/base/pages.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/matrix_impl.h"

namespace optiq::kernels {
namespace {

void check_affine_shapes(
    const mx::array& weight,
    const mx::array& scales,
    const mx::array& biases,
    int bits,
    int group_size) {
  constexpr const char* kFunction = "Matrix::quantized";
  check_affine_format(kFunction, bits, group_size);
  if (weight.dtype() != mx::uint32 || weight.ndim() != 2 ||
      weight.size() == 0) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] weight: found {} of {} bytes per element, expected a uint32 "
        "[out, in * bits / 32].",
        kFunction,
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
        kFunction,
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
          kFunction,
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
        kFunction);
  }
}

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

/** Panels are read as one stream per thread: huge pages save a page walk every
 * 4 KB (4 bits, one row, one thread of a Zen 5: 46 GB/s become 53). */
hwy::AlignedFreeUniquePtr<std::byte[]> allocate_panels(std::size_t bytes) {
  auto panels = hwy::AllocateAligned<std::byte>(bytes);
  if (panels) {
    advise_huge_pages(panels.get(), bytes);
  }
  return panels;
}

} // namespace

cpu::FloatType
float_type_of(const char* function, const char* what, mx::Dtype dtype) {
  if (dtype == mx::bfloat16) {
    return cpu::FloatType::BFloat16;
  }
  if (dtype == mx::float16) {
    return cpu::FloatType::Float16;
  }
  if (dtype == mx::float32) {
    return cpu::FloatType::Float32;
  }
  fail(
      ErrorKind::InvalidInput,
      "[{}] {}: found a dtype of {} bytes that is not a float, expected "
      "bfloat16, float16 or float32. Convert it first.",
      function,
      what,
      static_cast<int>(mx::size_of(dtype)));
}

void check_affine_format(const char* function, int bits, int group_size) {
  require_one_of(function, "bits", artifacts::kAffineBits, bits);
  require_one_of(
      function, "group_size", artifacts::kAffineGroupSizes, group_size);
}

std::string shape_text(const mx::array& x) {
  return fmt::format("[{}]", fmt::join(x.shape(), ", "));
}

cpu::DenseWeights Matrix::Storage::dense_weights() const {
  return {dense->data<void>(), shape.params, shape.rows, shape.cols};
}

Matrix::Matrix(std::shared_ptr<const Storage> storage)
    : storage_(std::move(storage)) {}

Matrix Matrix::dense(mx::array weight) {
  if (weight.ndim() != 2 || weight.size() == 0) {
    fail(
        ErrorKind::InvalidInput,
        "[Matrix::dense] weight: found {}, expected [out, in].",
        shape_text(weight));
  }
  auto storage = std::make_shared<Storage>();
  storage->shape.params =
      float_type_of("Matrix::dense", "weight", weight.dtype());
  storage->shape.rows = weight.shape(0);
  storage->shape.cols = weight.shape(1);
  storage->shape.bits = static_cast<int>(8 * weight.itemsize());
  storage->dense = io::materialize(weight);
  return Matrix(std::move(storage));
}

Matrix Matrix::quantized(
    const mx::array& weight,
    const mx::array& scales,
    const mx::array& biases,
    int bits,
    int group_size) {
  check_affine_shapes(weight, scales, biases, bits, group_size);
  auto storage = std::make_shared<Storage>();
  cpu::PanelShape& shape = storage->shape;
  shape.rows = weight.shape(0);
  shape.cols = static_cast<int>(std::int64_t{weight.shape(1)} * 32 / bits);
  shape.bits = bits;
  shape.group = group_size;
  shape.params = float_type_of("Matrix::quantized", "scales", scales.dtype());
  storage->panels = allocate_panels(shape.bytes());
  if (!storage->panels) {
    fail(
        ErrorKind::Exhausted,
        "[Matrix::quantized] weight {}: no memory for {} bytes of panels. "
        "Free some RAM.",
        shape_text(weight),
        shape.bytes());
  }
  const mx::array w = io::materialize(weight);
  const mx::array s = io::materialize(scales);
  const mx::array b = io::materialize(biases);
  const cpu::AffineRows rows{w.data<void>(), s.data<void>(), b.data<void>()};
  parallel_for(shape.panels(), 1, [&](std::size_t first, std::size_t last) {
    cpu::pack_panels(shape, rows, first, last, storage->panels.get());
  });
  return Matrix(std::move(storage));
}

int Matrix::out_features() const {
  return storage_->shape.rows;
}

int Matrix::in_features() const {
  return storage_->shape.cols;
}

bool Matrix::is_quantized() const {
  return !storage_->dense.has_value();
}

int Matrix::bits() const {
  return storage_->shape.bits;
}

int Matrix::group_size() const {
  return storage_->shape.group;
}

std::uint64_t Matrix::nbytes() const {
  return is_quantized() ? storage_->shape.bytes() : storage_->dense->nbytes();
}

} // namespace optiq::kernels
