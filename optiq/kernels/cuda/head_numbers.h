#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "optiq/kernels/attention.h"

namespace optiq::kernels::cuda {

/** The numbers by which the heads of a batch turn and grow, on their way to a
 * card. */
struct HeadNumbers {
  std::vector<std::int32_t> positions; // [T]
  /** One row, or one per row of the batch; none where nothing turns. */
  std::vector<float> frequencies;
  std::vector<float> growth; // [T] or none
  int frequencies_stride = 0;

  HeadNumbers(std::span<const Segment> segments, const AttentionRule& rule);
};

} // namespace optiq::kernels::cuda
