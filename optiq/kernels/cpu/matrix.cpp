#include "optiq/kernels/cpu/matrix.h"

#include <memory>
#include <utility>

#include <hwy/aligned_allocator.h>

#include "optiq/base/error.h"
#include "optiq/base/pages.h"
#include "optiq/base/ram_limit.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/affine_checks.h"

namespace optiq::kernels::cpu {
namespace {

/** Panels are read as one stream per thread: huge pages save a page walk every
 * 4 KB (4 bits, one row, one thread of a Zen 5: 46 GB/s become 53). Null where
 * there is no memory. */
std::shared_ptr<std::byte[]> allocate_panels(std::size_t bytes) {
  if (auto panels = RamLimit::spill(bytes)) {
    return panels;
  }
  auto panels = hwy::AllocateAligned<std::byte>(bytes);
  if (panels) {
    advise_huge_pages(panels.get(), bytes);
  }
  return panels;
}

} // namespace

FloatType
float_type_of(const char* function, const char* what, mx::Dtype dtype) {
  check_float(function, what, dtype);
  return dtype == mx::bfloat16 ? FloatType::BFloat16
      : dtype == mx::float16   ? FloatType::Float16
                               : FloatType::Float32;
}

DenseWeights MatrixData::dense_weights() const {
  return {dense->data<void>(), shape.params, shape.rows, shape.cols};
}

const MatrixData& data_of(const Matrix& matrix) {
  if (matrix.storage().device != kDeviceName) {
    fail(
        ErrorKind::InvalidInput,
        "[Device] weight [{}, {}]: found on device '{}', expected '{}'. Load "
        "the model on the device that runs it.",
        matrix.out_features(),
        matrix.in_features(),
        matrix.storage().device,
        kDeviceName);
  }
  return static_cast<const MatrixData&>(matrix.storage());
}

Matrix dense_matrix(const mx::array& weight) {
  check_dense_shape("Device::dense", weight);
  auto data = std::make_shared<MatrixData>();
  data->shape.params = float_type_of("Device::dense", "weight", weight.dtype());
  data->shape.rows = weight.shape(0);
  data->shape.cols = weight.shape(1);
  data->shape.bits = static_cast<int>(8 * weight.itemsize());
  data->dense = io::materialize(weight);
  data->device = kDeviceName;
  data->out = data->shape.rows;
  data->in = data->shape.cols;
  data->bits = data->shape.bits;
  data->nbytes = data->dense->nbytes();
  return Matrix(std::move(data));
}

Matrix quantized_matrix(
    const mx::array& weight,
    const mx::array& scales,
    const mx::array& biases,
    int bits,
    int group_size) {
  constexpr const char* kFunction = "Device::quantized";
  check_affine_shapes(kFunction, weight, scales, biases, bits, group_size);
  auto data = std::make_shared<MatrixData>();
  PanelShape& shape = data->shape;
  shape.rows = weight.shape(0);
  shape.cols = static_cast<int>(std::int64_t{weight.shape(1)} * 32 / bits);
  shape.bits = bits;
  shape.group = group_size;
  shape.params = float_type_of(kFunction, "scales", scales.dtype());
  data->panels = allocate_panels(shape.bytes());
  if (!data->panels) {
    fail(
        ErrorKind::Exhausted,
        "[{}] weight {}: no memory for {} bytes of panels. Free some RAM.",
        kFunction,
        shape_text(weight),
        shape.bytes());
  }
  const mx::array w = io::materialize(weight);
  const mx::array s = io::materialize(scales);
  const mx::array b = io::materialize(biases);
  const AffineRows rows{w.data<void>(), s.data<void>(), b.data<void>()};
  parallel_for(shape.panels(), 1, [&](std::size_t first, std::size_t last) {
    pack_panels(shape, rows, first, last, data->panels.get());
  });
  data->device = kDeviceName;
  data->out = shape.rows;
  data->in = shape.cols;
  data->bits = bits;
  data->group_size = group_size;
  data->nbytes = shape.bytes();
  return Matrix(std::move(data));
}

} // namespace optiq::kernels::cpu
