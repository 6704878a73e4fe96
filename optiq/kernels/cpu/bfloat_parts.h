#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "optiq/kernels/cpu/activations.h"
#include "optiq/kernels/cpu/amx.h"
#include "optiq/kernels/cpu/output.h"

namespace optiq::kernels::cpu {

/**
 * Rows of x as sums of three bfloat16 parts, each the nearest to what those
 * before it leave: all 24 bits of a float32. As tiles that meet rows of
 * bfloat16 weights:
 *
 *   [block of 16 rows][step of 32 inputs][part, smallest first]
 *       [16 pairs of inputs][rows][2 inputs]
 *
 * The last block of several is filled up with zeros; one block alone is as wide
 * as its rows are many. So are the inputs of the last step.
 */
struct BFloatParts {
  static constexpr int kParts = 3;
  static constexpr int kStepInputs = 32;

  int rows = 0;
  int cols = 0;
  std::uint16_t* values = nullptr; // 64-byte aligned

  int width() const { // rows of a block
    return std::min(rows, int{kTileRows});
  }
  std::size_t blocks() const {
    return (static_cast<std::size_t>(rows) + kTileRows - 1) / kTileRows;
  }
  std::size_t steps() const {
    return (static_cast<std::size_t>(cols) + kStepInputs - 1) / kStepInputs;
  }
  std::size_t part_values() const {
    return static_cast<std::size_t>(kStepInputs) * width();
  }
  std::size_t step_values() const {
    return kParts * part_values();
  }
  std::size_t block_values() const {
    return steps() * step_values();
  }
  std::size_t size() const {
    return blocks() * block_values();
  }
  /** Work items of split_rows: the steps of each block. */
  std::size_t tasks() const {
    return blocks() * steps();
  }
};

/** Splits tasks [first, last) of x [rows, cols], or of rms_norm(x). Of infinity
 * and NaN, and of what is rounded to infinity, there is the first part alone.
 */
void split_rows(
    const float* x,
    const RowNorm& norm,
    const BFloatParts& to,
    std::size_t first,
    std::size_t last);

/** Floats of scratch (64-byte aligned) that a thread needs for so many rows. */
std::size_t parts_scratch(int rows);

/** x times columns [first, last) of bfloat16 weights [.., x.cols], row-major,
 * transposed; `to` is where `first` goes. Per 32 inputs a result becomes
 * sum + (even + odd) for each part, smallest first, where even and odd are
 * chains of fused multiply-adds over the even and odd inputs: TDPBF16PS, which
 * takes subnormal numbers as zeros. A result depends on its row alone. */
void multiply_parts(
    const BFloatParts& x,
    const std::uint16_t* weights,
    std::size_t first,
    std::size_t last,
    const Output& to,
    float* scratch);

} // namespace optiq::kernels::cpu
