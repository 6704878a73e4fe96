#pragma once

#include <span>

#include "optiq/kernels/cuda/card.h"
#include "optiq/kernels/device.h"

namespace optiq::kernels::cuda {

/** What adapters add to a product's results [T, out]: y += scale (x A^T) B on
 * the rows of each update; x [T, in], behind an RMS norm, if any. All at
 * once, but for updates of the same rows of a result. A and B were uploaded:
 * they are read ahead of what is before. Throws InvalidInput for other shapes.
 */
void add_updates(
    Card& card,
    const Product& product,
    const mx::array& x,
    const Norm* norm,
    std::span<const mx::array> results);

} // namespace optiq::kernels::cuda
