#include <mlx/device.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "optiq/base/error.h"
#include "optiq/kernels/affine_checks.h"
#include "optiq/kernels/mlx/operations.h"
#include "optiq/kernels/mlx/portable.h"
#include "optiq/kernels/product_checks.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::portable {
namespace {

constexpr const char* kFunction = "multiply";

const MatrixArrays& arrays_of(const Matrix& matrix) {
  const auto* arrays = dynamic_cast<const MatrixArrays*>(&matrix.storage());
  if (arrays == nullptr) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] weight: found a matrix of device {}, expected one of {}. Load "
        "the model for this device.",
        kFunction,
        matrix.storage().device,
        kDeviceName);
  }
  return *arrays;
}

Matrix matrix_of(std::shared_ptr<MatrixArrays> arrays) {
  std::vector<mx::array> all{arrays->weight};
  if (arrays->scales) {
    all.insert(all.end(), {*arrays->scales, *arrays->biases});
  }
  mx::eval(all);
  arrays->device = kDeviceName;
  for (const mx::array& array : all) {
    arrays->nbytes += array.nbytes();
  }
  return Matrix(std::move(arrays));
}

/** y + scale (x A^T) B^T on the update's rows. */
mx::array
updated(const mx::array& y, const mx::array& x, const LowRankUpdate& update) {
  const int begin = update.first_row;
  const int end = begin + update.rows;
  check_range(kFunction, "update", begin, update.rows, x.shape(0));
  const auto rows_of = [&](const mx::array& all) {
    return mx::slice(all, {begin, 0}, {end, all.shape(1)});
  };
  const auto in_dtype = [&](const mx::array& w) {
    return mx::astype(w, x.dtype());
  };
  const mx::array inner =
      mx::matmul(rows_of(x), mx::transpose(in_dtype(update.a)));
  const mx::array change = mx::multiply(
      mx::matmul(inner, in_dtype(update.b)), scalar_of(y, update.scale));
  return mx::slice_update(
      y,
      mx::add(rows_of(y), change),
      mx::Shape{begin, 0},
      mx::Shape{end, y.shape(1)});
}

/** x W^T. */
mx::array times(const mx::array& x, const Matrix& matrix) {
  const MatrixArrays& w = arrays_of(matrix);
  const int rows = x.ndim() == 2 ? x.shape(0) : 0;
  require_shape(kFunction, "x", x, {rows, matrix.in_features()});
  if (rows == 0) { // MLX's quantized product divides by them
    return mx::zeros({0, matrix.out_features()}, x.dtype());
  }
  const mx::array y = matrix.is_quantized()
      ? mx::quantized_matmul(
            x,
            w.weight,
            *w.scales,
            *w.biases,
            /*transpose=*/true,
            matrix.group_size(),
            matrix.bits())
      : mx::matmul(x, mx::transpose(w.weight));
  return mx::astype(y, x.dtype());
}

mx::array project(const mx::array& x, const Projection& projection) {
  mx::array y = times(x, *projection.weight);
  if (projection.bias != nullptr) {
    require_shape(kFunction, "bias", *projection.bias, {y.shape(1)});
    y = add_bias(y, *projection.bias);
  }
  for (const LowRankUpdate& update : projection.updates) {
    y = updated(y, x, update);
  }
  return y;
}

} // namespace

mx::Dtype activation_dtype(Compute compute) {
  switch (compute) {
    case Compute::Exact:
      return mx::float32;
    case Compute::Fast:
      // MLX's CPU sums bfloat16 products in bfloat16: float32 there.
      return mx::default_device() == mx::Device::gpu ? mx::bfloat16
                                                     : mx::float32;
    case Compute::Int8:
      break;
  }
  fail(
      ErrorKind::Unsupported,
      "[mlx] compute: found int8, expected fast or exact: MLX multiplies floats "
      "only. Choose one of these, or the cpu device.");
}

Matrix dense_matrix(const mx::array& weight) {
  check_dense_shape("dense", weight);
  check_float("dense", "weight", weight.dtype());
  auto arrays = std::make_shared<MatrixArrays>(weight);
  arrays->out = weight.shape(0);
  arrays->in = weight.shape(1);
  arrays->bits = static_cast<int>(8 * weight.itemsize());
  return matrix_of(std::move(arrays));
}

Matrix quantized_matrix(
    const mx::array& weight,
    const mx::array& scales,
    const mx::array& biases,
    int bits,
    int group_size) {
  check_affine_shapes("quantized", weight, scales, biases, bits, group_size);
  check_float("quantized", "scales", scales.dtype());
  auto arrays = std::make_shared<MatrixArrays>(weight);
  arrays->scales = scales;
  arrays->biases = biases;
  arrays->out = weight.shape(0);
  arrays->in = scales.shape(1) * group_size;
  arrays->bits = bits;
  arrays->group_size = group_size;
  return matrix_of(std::move(arrays));
}

std::vector<mx::array> multiply(const mx::array& x, const Product& product) {
  check_product(kFunction, product);
  const mx::Dtype dtype = activation_dtype(product.compute);
  const mx::array rows = mx::astype(
      product.norm != nullptr ? normalize(x, *product.norm) : x, dtype);
  std::vector<mx::array> results;
  for (const Projection& projection : product.projections) {
    results.push_back(project(rows, projection));
  }
  if (product.activation) {
    return {glu(results[0], results[1], *product.activation)};
  }
  if (product.residual != nullptr) {
    require_shape(kFunction, "residual", *product.residual, results[0].shape());
    results[0] = mx::add(mx::astype(*product.residual, dtype), results[0]);
  }
  return results;
}

mx::array
embed(std::span<const std::int32_t> ids, const Matrix& weight, float scale) {
  const MatrixArrays& w = arrays_of(weight);
  const auto n = static_cast<int>(ids.size());
  for (const std::int32_t id : ids) {
    check_range("embed", "id", id, 1, weight.out_features());
  }
  if (n == 0) {
    return mx::zeros({0, weight.in_features()}, mx::float32);
  }
  const mx::array at(ids.data(), mx::Shape{n}, mx::int32);
  const auto rows_of = [&](const mx::array& all) {
    return mx::take(all, at, 0);
  };
  const auto floats_of = [&](const mx::array& all) {
    return mx::astype(rows_of(all), mx::float32);
  };
  const mx::array x = weight.is_quantized() ? mx::dequantize(
                                                  rows_of(w.weight),
                                                  floats_of(*w.scales),
                                                  floats_of(*w.biases),
                                                  weight.group_size(),
                                                  weight.bits())
                                            : floats_of(w.weight);
  return scale == 1.f ? x : mx::multiply(x, scalar_of(x, scale));
}

} // namespace optiq::kernels::portable
