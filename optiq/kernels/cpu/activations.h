#pragma once

#include <cstddef>
#include <cstdint>

namespace optiq::kernels::cpu {

/** Activations share one scale over this many inputs: a whole small group, half
 * a group of 128. Scales per 64 keep outliers from drowning a row. */
constexpr int unit_inputs(int group) {
  return group < 64 ? group : 64;
}

/** Of 1, 2, 4 or 8 rows: where tables of kernels have theirs. */
constexpr int log2_rows(int rows) {
  return rows == 1 ? 0 : rows == 2 ? 1 : rows == 4 ? 2 : 3;
}

/**
 * How quantized activations lie in memory. Rows go in blocks of `block_rows`
 * (1, 2, 4 or 8; the last block is the smallest of them that holds the rest,
 * padded with zero rows):
 *
 *   cells   per block, unit, chunk of 32 inputs, digit, quad, row: 4 int8 of 4
 *           inputs
 *   scales  per block, unit: the rows' scales, then the rows' sums
 *
 * One digit: x ~ scale * q, |q| <= 127. Two: x ~ scale * (256 * h + l). A sum
 * is scale * (sum of the quantized values), what the bias of a group
 * multiplies: the sum of the true values would add an error of its own.
 */
struct ActivationLayout {
  int rows = 0;
  int cols = 0;
  int unit = 64; // inputs per scale
  int digits = 1;
  int block_rows = 1;

  std::size_t units() const { // per row
    return static_cast<std::size_t>(cols) / unit;
  }
  /** Rows of the block that starts at `first`, padding included. */
  int rows_of_block(int first) const {
    const int left = rows - first;
    int size = block_rows;
    while (size > 1 && size / 2 >= left) {
      size /= 2;
    }
    return size;
  }
  /** Rows with the padding. */
  int padded_rows() const {
    const int last = rows > 0 ? (rows - 1) / block_rows * block_rows : 0;
    return rows > 0 ? last + rows_of_block(last) : 0;
  }
  std::size_t cell_offset(int first) const { // in cells; first row of a block
    return static_cast<std::size_t>(first) * cols / 4 * digits;
  }
  std::size_t scale_offset(int first) const {
    return static_cast<std::size_t>(first) * units() * 2;
  }
  std::size_t cells() const {
    return cell_offset(padded_rows());
  }
  std::size_t scales() const {
    return scale_offset(padded_rows());
  }
  std::size_t blocks() const {
    return (static_cast<std::size_t>(rows) + block_rows - 1) / block_rows;
  }
  /** Work items of quantize_activations: the units of each block, whose rows
   * share cache lines. */
  std::size_t tasks() const {
    return blocks() * units();
  }
};

struct Activations {
  ActivationLayout layout;
  std::int32_t* cells = nullptr;
  float* scales = nullptr;
};

/** rms_norm's operands, where it is applied to rows on their way in. */
struct RowNorm {
  const float* weight = nullptr; // [cols]; null: the rows as they are
  float eps = 0.f;
};

/** Quantizes tasks [first, last) of x [rows, cols], or of rms_norm(x). A unit
 * with a NaN or an infinity gets NaN as its scale, and so makes its row's
 * results NaN. */
void quantize_activations(
    const float* x,
    const RowNorm& norm,
    const Activations& to,
    std::size_t first,
    std::size_t last);

} // namespace optiq::kernels::cpu
