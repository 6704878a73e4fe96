#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "optiq/kernels/cpu/activations.h"
#include "optiq/kernels/cpu/low_rank.h"
#include "optiq/kernels/device.h"

namespace optiq::kernels::cpu {

/** What is added to a product, in this order. */
struct Addends {
  std::span<const LowRankTerm> updates; // each with scratch of its own
  const float* bias = nullptr; // [out]
};

/** One product of a call, and what follows it on the same columns. */
struct MatmulJob {
  const Matrix* weight = nullptr;
  /** With a second matrix: y = glu(x weight^T, x up^T). */
  const Matrix* up = nullptr;
  void (*glu)(const float* gate, const float* up, std::size_t n, float* out) =
      nullptr;
  const float* residual = nullptr; // [rows, out], added
  Addends addends; // to that; before the gated unit
  Addends up_addends; // to the product with `up`
  float* y = nullptr; // [rows, out]
};

/** Products that read the same rows, all of them not empty. */
struct MatmulCall {
  const float* x = nullptr; // [rows, in]
  int rows = 0;
  RowNorm norm; // applied to the rows first
  Compute compute = Compute::Fast;
  std::span<const MatmulJob> jobs;
};

/** Runs everything in one region of the shared pool. Throws Exhausted. */
void run_matmuls(const MatmulCall& call);

} // namespace optiq::kernels::cpu
