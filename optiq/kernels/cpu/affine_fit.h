#pragma once

#include <cstddef>

#include "optiq/kernels/cpu/panels.h"

/**
 * Affine codes that lie close to a weight W [rows, columns] in a metric of the
 * inputs. Every row minimizes by itself the sum over inputs k of
 *
 *   importance[k] * n_k^2,   n_k = e_k + sum over j < k of e_j factor[j][k],
 *
 * e = W - coded W. With H = (I + F) diag(importance) (I + F)^T, F the factor,
 * that is e H e^T: column by column, what was lost so far is made up for by the
 * columns still to come (LDLQ, arXiv 2307.13304, the same codes as GPTQ's,
 * arXiv 2210.17323). The order of columns is that of the format: a group is a
 * run of columns, so there is no other without permuting the model.
 *
 * Without a factor n = e, and every group is a search by itself. A group's
 * scale and bias are those of least error among shrunken ranges, each brought
 * to the least squares of its codes; MLX's own are among them.
 */
namespace optiq::kernels::cpu {

struct FitArgs {
  const void* values = nullptr; // [rows, columns]
  FloatType type = FloatType::BFloat16; // of values, scales and biases
  int bits = 4;
  int group = 64;
  std::size_t columns = 0; // a multiple of `group`
  const float* importance = nullptr; // [columns], not negative
  const float* factor = nullptr; // [columns, columns], above the diagonal
  void* codes = nullptr; // columns * bits / 8 bytes per row
  void* scales = nullptr; // [rows, columns / group]
  void* biases = nullptr;
};

/** Rows whose errors are held at once. */
inline constexpr std::size_t kFitRows = 96;

/** Rows [first, last), on this thread. Takes kFitRows * columns floats where
 * there is a factor. */
void fit_rows(const FitArgs& args, std::size_t first, std::size_t last);

} // namespace optiq::kernels::cpu
