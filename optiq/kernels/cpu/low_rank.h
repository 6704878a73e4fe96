#pragma once

#include <cstddef>

#include "optiq/kernels/cpu/output.h"
#include "optiq/kernels/cpu/panels.h"

namespace optiq::kernels::cpu {

/** One side of a low-rank update: [rank, width], row-major. */
struct LowRankSide {
  const void* data = nullptr;
  FloatType type = FloatType::BFloat16;
  int rank = 0;
  int width = 0;
};

/** What an adapter adds to rows [first_row, first_row + rows) of a product. */
struct LowRankTerm {
  std::size_t first_row = 0;
  int rows = 0;
  LowRankSide a; // [rank, in]
  LowRankSide b; // [rank, out]
  float scale = 1.f;
  float* inner = nullptr; // [rows, rank], scratch: scale x A^T
};

/** Columns [first, last) of term.inner, of x [>= first_row + rows, in]. Of
 * `next`, which comes after it, the same rows of A are fetched meanwhile. */
void multiply_inner(
    const LowRankTerm& term,
    const float* x,
    std::size_t first,
    std::size_t last,
    const LowRankTerm* next = nullptr);

/** Adds columns [first, last) of inner B to the term's rows of `to`, whose y is
 * row 0 of column `first`. Of `next` the same columns of B are fetched. */
void add_low_rank(
    const LowRankTerm& term,
    std::size_t first,
    std::size_t last,
    const Output& to,
    const LowRankTerm* next = nullptr);

/** Fetches what add_low_rank will read of the term. */
void fetch_outer(const LowRankTerm& term, std::size_t first, std::size_t last);

} // namespace optiq::kernels::cpu
