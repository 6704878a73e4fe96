#pragma once

#include <cstddef>

/** Intel's matrix tiles (AMX). They are a SIMD target of their own, "AMX": that
 * of AVX-512, with products on tiles. */
namespace optiq::kernels::cpu {

// Of a tile: rows of the first operand, lanes of the second, and both of sums.
inline constexpr std::size_t kTileRows = 16;

/** Whether the CPU has them, with int8 and bfloat16, and the system lets this
 * process use them. Asked once. */
bool has_amx();

/** Whether products use them: where they are, unless a target without them is
 * forced. */
bool uses_amx();
void set_uses_amx(bool wanted);

} // namespace optiq::kernels::cpu
