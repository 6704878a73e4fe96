#pragma once

#include <cstddef>

#include "optiq/kernels/cpu/panels.h"

/**
 * C = A B or C += A B in float32, for what gradients need: A by any strides, B
 * [inner, cols] with its rows along the lanes, dense or the panels of a
 * quantized matrix. Every element is one chain of multiply-adds over `inner`,
 * in order, so its bits depend on nothing but its row of A and column of B.
 */
namespace optiq::kernels::cpu {

/** A[m][k] = data[m * row_stride + k * column_stride]. */
struct LeftFactor {
  const float* data = nullptr;
  std::size_t row_stride = 0;
  std::size_t column_stride = 1;
};

/** B[k][n]: rows at a stride, or panels where there are any. */
struct RightFactor {
  const void* data = nullptr;
  FloatType type = FloatType::Float32;
  std::size_t stride = 0; // elements from row to row
  const PanelWeights* panels = nullptr;
  std::size_t first_column = 0; // of panels a multiple of 4
};

struct FloatProduct {
  LeftFactor a;
  RightFactor b;
  float* c = nullptr;
  std::size_t c_stride = 0;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::size_t inner = 0;
  bool accumulate = false; // onto what C holds
};

/** All of it, on this thread. */
void multiply_floats(const FloatProduct& product);

/** All of it, on the shared pool. */
void multiply_floats_in_parallel(const FloatProduct& product);

} // namespace optiq::kernels::cpu
