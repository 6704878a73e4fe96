#pragma once

#include "optiq/kernels/cpu/panel_matmul.h"

namespace optiq::kernels::cpu {

/** Whether the target's kernels want two digits as words. */
bool reads_words(int rows, int bits, int digits);

/** Up to kDirectRows rows. */
void multiply_direct(
    const Activations& x,
    const PanelWeights& weights,
    std::size_t first,
    std::size_t last,
    const Output& to);

/** Any number of rows. */
void multiply_tiled(
    const Activations& x,
    const PanelWeights& weights,
    std::size_t first,
    std::size_t last,
    const Output& to);

} // namespace optiq::kernels::cpu
