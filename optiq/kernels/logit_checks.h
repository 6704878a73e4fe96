#pragma once

#include <cstdint>
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

/** A label below V and a weight for every row; a weight alone. */
void require_labels(
    const char* function,
    const mx::array& logits,
    std::span<const std::int32_t> labels,
    std::span<const float> weights);
void require_weights(
    const char* function,
    const mx::array& logits,
    std::span<const float> weights);

} // namespace optiq::kernels
