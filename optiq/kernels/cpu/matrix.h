#pragma once

#include <cstddef>
#include <memory>
#include <optional>

#include "optiq/kernels/cpu/dense_matmul.h"
#include "optiq/kernels/cpu/panels.h"
#include "optiq/kernels/matrix.h"

namespace optiq::kernels::cpu {

inline constexpr const char* kDeviceName = "cpu";

/** Dense weights stay where they are (a mapped file); quantized ones are
 * repacked once into panels of 16 rows. Exactly one of the two is set. */
struct MatrixData final : MatrixStorage {
  std::optional<mx::array> dense; // [out, in], evaluated and contiguous
  PanelShape shape; // rows and cols in both forms
  std::shared_ptr<std::byte[]> panels;

  DenseWeights dense_weights() const;
  PanelWeights panel_weights() const {
    return {shape, panels.get()};
  }
};

Matrix dense_matrix(const mx::array& weight);
/** Repacks: a copy of equal size. */
Matrix quantized_matrix(
    const mx::array& weight,
    const mx::array& scales,
    const mx::array& biases,
    int bits,
    int group_size);

/** Throws InvalidInput for a matrix of another device. */
const MatrixData& data_of(const Matrix& matrix);

/** Throws InvalidInput unless dtype is bf16, f16 or f32. */
FloatType
float_type_of(const char* function, const char* what, mx::Dtype dtype);

} // namespace optiq::kernels::cpu
