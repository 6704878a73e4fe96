#pragma once

#include <cstddef>
#include <cstdint>

namespace optiq::kernels::cpu {

/** Activations share one scale over this many inputs: a whole small group, half
 * a group of 128. Scales per 64 keep outliers from drowning a row. */
constexpr int unit_inputs(int group) {
  return group < 64 ? group : 64;
}

/** Rows of a block: as many, or up to four. 5 to 7 rows alone are filled up to
 * 8: kernels of their own would be three more of each, and a second pass over
 * what the first left in L1 takes longer than the zeros. */
inline constexpr int kMostBlockRows = 8;
inline constexpr int kFewBlockRows = 4;

/** Of 1, 2, 3, 4 or 8 rows: where tables of kernels have theirs. */
constexpr int kernel_of_rows(int rows) {
  return rows == kMostBlockRows ? kFewBlockRows : rows - 1;
}

/** What the cells of a unit are, in the order in which kernels read them. */
enum class CellForm {
  /** Per chunk of 32 inputs, digit, quad, row: 4 int8 of 4 inputs. */
  Quads,
  /** Two digits as one int16. Per chunk, quad: each row's inputs 0 and 2, then
   * each row's 1 and 3. */
  Words,
  /** Per digit: 16 rows of 64 int8, a tile of AMX. */
  Tiles
};

/**
 * How quantized activations lie in memory. Rows go in blocks of `block_rows`,
 * and what is left in blocks of up to 4, or in one that is filled up with rows
 * of zeros.
 *
 *   cells   per block, unit: as CellForm says
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
  CellForm form = CellForm::Quads;
  int block_rows = kMostBlockRows;
  bool fills_up = false;

  std::size_t units() const { // per row
    return static_cast<std::size_t>(cols) / unit;
  }
  /** Rows of the block that starts at `first`. */
  int rows_of_block(int first) const {
    const int left = rows - first;
    return left >= block_rows ? block_rows
        : left > rest_rows()  ? rest_rows()
                              : left;
  }
  /** Rows that it has with those of zeros. */
  int stored_rows_of_block(int first) const {
    return fills_up ? block_rows : rows_of_block(first);
  }
  /** First row of a block. */
  int block_start(int block) const {
    const int whole = rows / block_rows;
    return block <= whole ? block * block_rows
                          : whole * block_rows + (block - whole) * rest_rows();
  }
  std::size_t cell_offset(int first) const { // in cells; first row of a block
    return static_cast<std::size_t>(first) * cols / 4 * digits;
  }
  std::size_t scale_offset(int first) const {
    return static_cast<std::size_t>(first) * units() * 2;
  }
  std::size_t cells() const {
    return cell_offset(stored_rows());
  }
  std::size_t scales() const {
    return scale_offset(stored_rows());
  }
  std::size_t blocks() const {
    return static_cast<std::size_t>(rows / block_rows) +
        (rows % block_rows + rest_rows() - 1) / rest_rows();
  }
  /** Work items of quantize_activations: the units of each block, whose rows
   * share cache lines. */
  std::size_t tasks() const {
    return blocks() * units();
  }

 private:
  int rest_rows() const {
    return fills_up ? block_rows : kFewBlockRows;
  }
  int stored_rows() const {
    return fills_up ? static_cast<int>(blocks()) * block_rows : rows;
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
