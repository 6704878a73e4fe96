#pragma once

#include <span>

#include <mlx/array.h>

#include "optiq/kernels/logit_blocks.h"

/** Argument checks that the devices share; logits are [T, V], V > 0. Throw
 * InvalidInput. */
namespace optiq::kernels {

namespace mx = mlx::core;

/** A scale above 0 for every row. */
void require_scales(
    const char* function,
    const mx::array& logits,
    std::span<const float> scales);
/** Blocks that the rows have. */
void require_blocks(
    const char* function,
    const mx::array& logits,
    std::span<const LogitBlockId> blocks);

} // namespace optiq::kernels
