#pragma once

#include <cstdint>
#include <vector>

#include "optiq/kernels/device.h"

namespace optiq::quant {

/** A token for every row of logits [T, V], drawn from its softmax: at
 * temperature 1, by random_uniform(seed, stream, first + row). */
std::vector<std::int32_t> sample_labels(
    kernels::Device& device,
    const mlx::core::array& logits,
    std::uint64_t seed,
    std::uint64_t stream,
    std::uint64_t first);

} // namespace optiq::quant
