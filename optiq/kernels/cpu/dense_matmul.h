#pragma once

#include <cstddef>

#include "optiq/kernels/cpu/output.h"
#include "optiq/kernels/cpu/panels.h"

namespace optiq::kernels::cpu {

/** Weights [rows, cols], row-major, at any alignment. */
struct DenseWeights {
  const void* data = nullptr;
  FloatType type = FloatType::BFloat16;
  int rows = 0;
  int cols = 0;
};

/** x [rows, weights.cols] times weights transposed. */
struct DenseProduct {
  const float* x = nullptr;
  int rows = 0;
  DenseWeights weights;
  Output to; // from the first column asked for on
};

/** Floats of scratch (64-byte aligned) that a thread needs for so many rows. */
std::size_t dense_scratch(int rows);

/** Columns [first, last), in float32. */
void multiply_dense(
    const DenseProduct& product,
    std::size_t first,
    std::size_t last,
    float* scratch);

} // namespace optiq::kernels::cpu
