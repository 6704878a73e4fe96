#pragma once

#include <span>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/quant/plan_options.h"

namespace optiq::quant {

/**
 * Gives every layer that is not protected the width that the allocation takes:
 * the least summed error within the target, never over it. `layers` come with
 * their narrowest widths and must fit the target. `measured` covers the free
 * modules for method optiq and is ignored by static.
 */
void choose_widths(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    const PlanOptions& options,
    std::span<const artifacts::LayerSensitivity> measured,
    std::vector<artifacts::LayerBits>& layers);

/** Those offered that rows of so many columns divide by, ascending. */
std::vector<int> group_sizes_for(int columns, const PlanOptions& options);

/** Parameters of the layers that are not protected. */
std::uint64_t free_parameters(std::span<const artifacts::LayerBits> layers);

} // namespace optiq::quant
