#pragma once

#include <cstddef>

#include "optiq/kernels/cpu/attention.h"
#include "optiq/kernels/cpu/kv_layout.h"

namespace optiq::kernels::cpu {

/** Writes the tile's rows of k and v [T][n_kv_heads][head_dim] into its blocks.
 * Tokens of one block share bytes: its tiles belong to one thread. */
void append_kv(
    const float* k,
    const float* v,
    const KvLayout& layout,
    const AttentionTile& tile);

/** Rotates vectors from [rows][dim], or turns them back. */
void rotate_rows(
    const RotationView& rotation,
    std::size_t dim,
    bool inverse,
    const float* from,
    std::size_t rows,
    float* to);

} // namespace optiq::kernels::cpu
