#include "optiq/nn/forward_context.h"

namespace optiq::nn {

std::vector<kernels::Segment> segments_of(
    const ForwardContext& context,
    int layer) {
  std::vector<kernels::Segment> segments;
  for (const Segment& segment : context.segments) {
    segments.push_back(
        {.first_row = segment.first_row,
         .rows = segment.rows,
         .start = segment.start,
         .blocks = segment.sequence->blocks(layer)});
  }
  return segments;
}

ForwardContext context_of_rows(
    const ForwardContext& context,
    std::span<const int> wanted) {
  ForwardContext rows{
      .device = context.device,
      .segments = {},
      .compute = context.compute,
      .layer_inputs = {},
      .observer = context.observer};
  std::size_t next = 0;
  for (const Segment& segment : context.segments) {
    Segment kept = segment;
    kept.first_row = static_cast<int>(next);
    while (next < wanted.size() &&
           wanted[next] < segment.first_row + segment.rows) {
      ++next;
    }
    kept.rows = static_cast<int>(next) - kept.first_row;
    rows.segments.push_back(kept);
  }
  return rows;
}

} // namespace optiq::nn
