#include "optiq/nn/forward_context.h"

#include <utility>

namespace optiq::nn {

ForwardContext make_forward_context(
    std::vector<Segment> segments,
    kernels::Compute compute) {
  ForwardContext context{.segments = std::move(segments), .compute = compute};
  for (const Segment& segment : context.segments) {
    for (int i = 0; i < segment.rows; ++i) {
      context.positions.push_back(segment.start + i);
    }
  }
  return context;
}

} // namespace optiq::nn
