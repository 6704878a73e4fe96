#pragma once

/** Intel's matrix tiles (AMX). They are a SIMD target of their own, "AMX": that
 * of AVX-512, with products on tiles. */
namespace optiq::kernels::cpu {

/** Whether the CPU has them, with int8 and bfloat16, and the system lets this
 * process use them. Asked once. */
bool has_amx();

/** Whether products use them: where they are, unless a target without them is
 * forced. */
bool uses_amx();
void set_uses_amx(bool wanted);

} // namespace optiq::kernels::cpu
