#include "optiq/kernels/cuda/head_numbers.h"

namespace optiq::kernels::cuda {

HeadNumbers::HeadNumbers(
    std::span<const Segment> segments,
    const AttentionRule& rule)
    : positions(positions_of(segments)) {
  if (rule.rope && uses_table(*rule.rope, positions)) {
    frequencies = rule.rope->inverse_frequencies;
  } else if (rule.rope) {
    frequencies_stride =
        static_cast<int>(rule.rope->inverse_frequencies.size());
    for (const std::int32_t position : positions) {
      const std::vector<float> row = frequencies_at(*rule.rope, position);
      frequencies.insert(frequencies.end(), row.begin(), row.end());
    }
  }
  if (rule.query_growth) {
    for (const std::int32_t position : positions) {
      growth.push_back(growth_at(*rule.query_growth, position));
    }
  }
}

} // namespace optiq::kernels::cuda
