#pragma once

#include <cstddef>

#include "optiq/kernels/cpu/delta_net.h"

/**
 * A gated delta net backwards over one whole sequence. With D = dL/dS_t, which
 * starts at 0 behind the last token, m = S_(t-1)^T k and e = v - g m:
 *
 *   D += q dy^T                       dq = S_t dy = g S_(t-1) dy + k (d . dy)
 *   dd = D^T k                        dk = D d + S_(t-1) dm, dm = -g beta dd
 *   dv = beta dd                      dbeta = dd . e
 *   dg = <D, S_(t-1)> - beta dd . m   D <- g D + k dm^T
 *
 * States are kept every kStateChunk tokens and made again in between.
 */
namespace optiq::kernels::cpu {

inline constexpr std::size_t kStateChunk = 16;

/** c = sum_j weight[c][j] in[t - kernel + 1 + j][c], before silu: of rows
 * [begin, end) of a sequence's `in` [rows][channels], which starts from zeros.
 */
void conv_rows(
    const float* in,
    const float* weight,
    const DeltaNetDims& dims,
    std::size_t begin,
    std::size_t end,
    float* sums);

/** d `in` of rows [begin, end) from d `sums` of the sequence's `rows`. */
void conv_gradient(
    const float* dsums,
    const float* weight,
    const DeltaNetDims& dims,
    std::size_t rows,
    std::size_t begin,
    std::size_t end,
    float* din);

/** What the recurrence of one value head read; strides are those of conv rows
 * and of y. */
struct HeadRecurrence {
  const float* conv = nullptr; // [rows][channels], q and k normalized
  const Gate* gates = nullptr; // [rows][value_heads]
  const float* dy = nullptr; // [rows][value_heads * value_dim]
  std::size_t rows = 0;
  std::size_t head = 0;
};

/** What it gets back: dq and dk are this value head's share. */
struct HeadRecurrenceGradient {
  float* dq = nullptr; // [rows][key_dim]
  float* dk = nullptr; // [rows][key_dim]
  float* dconv = nullptr; // [rows][channels]: its channels of v
  Gate* dgates = nullptr; // [rows][value_heads]
};

/** Floats of scratch that a call needs. */
std::size_t recurrence_scratch(const DeltaNetDims& dims, std::size_t rows);

void recurrence_gradient(
    const HeadRecurrence& head,
    const DeltaNetDims& dims,
    const HeadRecurrenceGradient& to,
    float* scratch);

/** Of gated_norm, per head of `rows` rows: dy becomes dL/dy of what the
 * recurrence gave, y; dz is written. */
void gated_norm_gradient(
    const float* z,
    const float* norm,
    float eps,
    const DeltaNetDims& dims,
    std::size_t rows,
    const float* y,
    float* dy,
    float* dz);

/** Of prepare_rows, and of silu before it. */
struct PreparedRows {
  const float* sums = nullptr; // [rows][channels], before silu
  const float* b = nullptr; // [rows][value_heads]
  const float* a = nullptr; // [rows][value_heads]
  GateWeights weights;
  const Gate* dgates = nullptr; // [rows][value_heads]
  std::size_t rows = 0;
};
/** dconv, dL/d of what prepare_rows gave, becomes dL/dsums; db and da [rows]
 * [value_heads] are written. */
void prepare_gradient(
    const PreparedRows& rows,
    const DeltaNetDims& dims,
    float* dconv,
    float* db,
    float* da);

} // namespace optiq::kernels::cpu
