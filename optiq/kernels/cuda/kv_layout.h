#pragma once

#include <vector>

#include "optiq/kernels/cuda/arguments.h"
#include "optiq/kernels/cuda/card.h"
#include "optiq/kernels/kv_format.h"

namespace optiq::kernels::cuda {

/** What a format's blocks are on a card (device/kv_side.cuh has the order),
 * with the rotations that it points into. */
struct CardKvLayout final : kernels::KvLayout {
  const Card* card = nullptr;
  KvShape shape{};
  std::vector<Buffer> rotations;
};

/** The shape of a checked format's blocks, but for the rotations. Throws
 * Unsupported for heads that the kernels do not take. */
KvShape kv_shape(const KvFormat& format);

/** Throws InvalidInput for a format of another device. */
const CardKvLayout&
layout_of(const char* function, const Card& card, const KvFormat& format);

} // namespace optiq::kernels::cuda
