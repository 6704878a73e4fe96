#pragma once

#include "optiq/kernels/device.h"

namespace optiq::kernels {

/**
 * MLX, on Metal where there is one and on MLX's CPU device elsewhere: the
 * operations are compositions of MLX's own, and nothing is computed before
 * `finish`, `to_host` or a reduction asks.
 *
 * Compute::Exact is float32 throughout. Compute::Fast is bfloat16 from the
 * first product on, as MLX's models run, on Metal; on the CPU device, whose
 * bfloat16 products are imprecise, it is float32 too. Compute::Int8 is refused.
 *
 * Rows are independent of each other up to rounding: MLX's products choose
 * their kernels by the number of rows. Reductions over the vocabulary are the
 * CPU's, in double precision: memory is shared.
 *
 * One per process. Blocks belong to the thread that wrote them until `finish`.
 */
Device& mlx_device();

} // namespace optiq::kernels
