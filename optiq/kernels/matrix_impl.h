#pragma once

#include <cstddef>
#include <optional>

#include <hwy/aligned_allocator.h>

#include "optiq/kernels/cpu/dense_matmul.h"
#include "optiq/kernels/cpu/panels.h"
#include "optiq/kernels/kernels.h"

namespace optiq::kernels {

/** Exactly one of the two forms is set. */
struct Matrix::Storage {
  std::optional<mx::array> dense; // [out, in], evaluated and contiguous

  cpu::PanelShape shape; // rows and cols in both forms
  hwy::AlignedFreeUniquePtr<std::byte[]> panels;

  cpu::DenseWeights dense_weights() const;
  cpu::PanelWeights panel_weights() const {
    return {shape, panels.get()};
  }
};

/** Throws InvalidInput unless dtype is bf16, f16 or f32. */
cpu::FloatType
float_type_of(const char* function, const char* what, mx::Dtype dtype);

/** Throws InvalidInput unless MLX's affine format has them. */
void check_affine_format(const char* function, int bits, int group_size);

/** "[3, 4]", for messages. */
std::string shape_text(const mx::array& x);

} // namespace optiq::kernels
