#pragma once

#include <cstddef>

#include "optiq/kernels/cpu/activations.h"
#include "optiq/kernels/cpu/output.h"
#include "optiq/kernels/cpu/panels.h"

namespace optiq::kernels::cpu {

/** Above this many rows panels are unpacked once per tile for all of them. */
inline constexpr int kDirectRows = 8;

/** The layout that multiply_panels wants for so many rows, and these panels. */
ActivationLayout
activation_layout(int rows, int cols, int group, int bits, int digits);

/** x times panels [first, last), transposed. */
void multiply_panels(
    const Activations& x,
    const PanelWeights& weights,
    std::size_t first,
    std::size_t last,
    const Output& to);

} // namespace optiq::kernels::cpu
