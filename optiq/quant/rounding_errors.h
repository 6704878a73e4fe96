#pragma once

#include <vector>

#include <mlx/types/half_types.h>

#include "optiq/kernels/device.h"

namespace optiq::quant {

/** What rounding does to a matrix [out, in]: the mean of (rounded - w)^2 in
 * every group of every row. As bfloat16: 8 bits of an error are enough, and
 * those of a whole model are held at once. */
struct RoundingErrors {
  int bits = 0;
  int group_size = 0;
  std::vector<mlx::core::bfloat16_t> mean_squares; // [out, in / group_size]
};

/** `rounded` is quantized, both lie on the device. Some rows at a time are
 * there as floats. */
RoundingErrors rounding_errors(
    kernels::Device& device,
    const kernels::Matrix& original,
    const kernels::Matrix& rounded);

} // namespace optiq::quant
