#pragma once

#include <cstddef>
#include <functional>
#include <span>

namespace optiq::kernels::cpu {

/**
 * Splits items of known cost into contiguous ranges of about equal total cost,
 * and calls body(rank, begin, end) for each, `rank` that of the shared pool
 * that runs it. Rank 0 does it all when the total is below `min_cost`.
 */
void parallel_by_cost(
    std::span<const std::size_t> costs,
    std::size_t min_cost,
    const std::function<
        void(std::size_t rank, std::size_t begin, std::size_t end)>& body);

} // namespace optiq::kernels::cpu
