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

} // namespace optiq::nn
