#pragma once

#include <mlx/array.h>

#include "optiq/kernels/error_metric.h"

namespace optiq::kernels {

namespace mx = mlx::core;

/** MLX's affine triple. */
struct AffineWeights {
  mx::array weight; // u32 [out, in*bits/32]
  mx::array scales; // [out, in/group], dtype of the source
  mx::array biases; // [out, in/group]
};

/** Quantizes the host's w [out, in] exactly as mx::quantize does (bit for bit),
 * bits 2, 3, 4, 5, 6, 8; groups 32, 64, 128 along `in`. Throws InvalidInput. */
AffineWeights quantize_affine(const mx::array& w, int bits, int group_size);

/** Codes in the same format that cost less in a metric of the inputs
 * (cpu/affine_fit.h): scales and biases are searched group by group, and with
 * a factor each column makes up for what the columns before it lost. Rows do
 * not depend on each other, nor bits on the number of threads. Throws
 * InvalidInput. */
AffineWeights fit_affine(
    const mx::array& w,
    int bits,
    int group_size,
    const ErrorMetric& metric);

} // namespace optiq::kernels
