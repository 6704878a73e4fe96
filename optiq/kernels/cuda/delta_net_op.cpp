#include <algorithm>

#include "optiq/kernels/cuda/delta_net_rows.h"
#include "optiq/kernels/cuda/operations.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/layer_checks.h"
#include "optiq/kernels/segment_checks.h"

namespace optiq::kernels::cuda {
namespace {

constexpr const char* kFunction = "gated_delta_net";

std::vector<StateSegment> with_rows(std::span<const Segment> segments) {
  std::vector<StateSegment> found;
  for (const Segment& segment : segments) {
    if (segment.rows > 0) {
      found.push_back(
          {.first_row = segment.first_row,
           .rows = segment.rows,
           .block = static_cast<unsigned long long>(segment.blocks.front())});
    }
  }
  return found;
}

/** The kernel for single rows, or null: heads of other sizes, or several rows
 * of a sequence. */
const char* step_kernel(
    const DeltaNetShape& shape,
    std::span<const StateSegment> segments) {
  const bool are_single = segments.size() <= kStepSegments &&
      std::all_of(segments.begin(), segments.end(), [](const auto& segment) {
                            return segment.rows == 1;
                          });
  if (!are_single || shape.key_dim != shape.value_dim) {
    return nullptr;
  }
  return shape.key_dim == 128 ? "delta_step_128"
      : shape.key_dim == 64   ? "delta_step_64"
                              : nullptr;
}

void launch_step(
    Card& card,
    const char* kernel,
    const DeltaNet& net,
    std::span<const StateSegment> segments) {
  constexpr unsigned kParts = 4;
  DeltaStep args;
  args.net = net;
  args.arrived = pointer_of<unsigned>(card.counters(
      segments.size() * static_cast<std::size_t>(net.n_key_heads)));
  std::copy(segments.begin(), segments.end(), args.segments);
  card.launch(
      kernel,
      {.x = static_cast<std::size_t>(net.n_value_heads),
       .y = segments.size(),
       .threads = kParts * static_cast<unsigned>(net.key_dim)},
      args);
}

void launch_rows(
    Card& card,
    const DeltaNet& net,
    std::span<const StateSegment> segments) {
  const DeltaNetRows rows(card, net, segments);
  rows.recur(card);
  Grid by_channel = grid_of(rows.channels());
  by_channel.y = segments.size();
  card.launch("delta_keep_rows", by_channel, rows.net());
  card.launch(
      "delta_gate",
      {.x = rows.rows(),
       .y = static_cast<std::size_t>(net.n_value_heads),
       .threads = 64},
      rows.net());
}

} // namespace

mx::array gated_delta_net(
    Card& card,
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const Segment> segments) {
  check_delta_net_shapes(kFunction, input, weights, shape);
  const int T = input.qkv.shape(0);
  check_state_segments(kFunction, segments, T);
  mx::array y = card.make_array({T, shape.n_value_heads * shape.value_dim});
  DeltaNet net = delta_net_of(card, input, weights, shape);
  net.y = new_floats_of(card, y);
  const std::vector<StateSegment> found = with_rows(segments);
  if (const char* kernel = step_kernel(shape, found)) {
    launch_step(card, kernel, net, found);
  } else {
    launch_rows(card, net, found);
  }
  return y;
}

} // namespace optiq::kernels::cuda
