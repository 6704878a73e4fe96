#pragma once

#include <cstddef>

#include "optiq/kernels/cpu/panels.h"

namespace optiq::kernels::cpu {

/** Weights [rows, cols], row-major, at any alignment. */
struct DenseWeights {
  const void* data = nullptr;
  FloatType type = FloatType::BFloat16;
  int rows = 0;
  int cols = 0;
};

/** Rows of y computed straight from the weights; more use an upconverted
 * copy of a few weight rows. */
inline constexpr int kDenseDirectRows = 4;

/** Columns [first, last) of y [rows, w.rows] = x [rows, w.cols] times w
 * transposed, in float32. */
void multiply_dense(
    const float* x,
    int rows,
    const DenseWeights& w,
    std::size_t first,
    std::size_t last,
    float* y);

} // namespace optiq::kernels::cpu
