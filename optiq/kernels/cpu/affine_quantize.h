#pragma once

#include <cstddef>
#include <cstdint>

#include "optiq/kernels/cpu/panels.h"

namespace optiq::kernels::cpu {

/** A matrix of groups: `groups` runs of `group` values, back to back. */
struct QuantizeArgs {
  const void* values = nullptr;
  FloatType type = FloatType::BFloat16; // of values, scales and biases
  int bits = 4;
  int group = 64;
  void* codes = nullptr; // group * bits / 8 bytes per group
  void* scales = nullptr;
  void* biases = nullptr;
};

/** Quantizes groups [first, last). */
void quantize_groups(
    const QuantizeArgs& args,
    std::size_t first,
    std::size_t last);

} // namespace optiq::kernels::cpu
