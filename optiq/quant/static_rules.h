#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "optiq/artifacts/module_id.h"

/** What a module's place in the network says of the bits that it needs. */
namespace optiq::quant {

/** Synthetic importance of a module in (0, 1] among n_blocks decoder blocks:
 * embeddings, head, edges and attention first. */
double static_priority(const artifacts::ModuleId& module, int n_blocks);

/** priority x parameters x 4^-bits. */
double static_error(double priority, std::uint64_t parameters, int bits);

/**
 * Per module: whether it is kept at the widest candidate. That are lm_head,
 * embeddings, the mixer (attention or delta net) of the first and the last
 * block, and the first and the last attention.
 */
std::vector<bool> protected_modules(
    std::span<const artifacts::ModuleId> modules);

} // namespace optiq::quant
