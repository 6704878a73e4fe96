#include <algorithm>

#include "optiq/kernels/cuda/arguments.h"
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

/** Segments, and the segment of each row, in one parcel. */
struct SentSegments {
  Buffer buffer;
  std::size_t rows_at = 0;
};

SentSegments send(Card& card, std::span<const StateSegment> segments) {
  std::vector<int> row_segments;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    row_segments.insert(
        row_segments.end(),
        static_cast<std::size_t>(segments[i].rows),
        static_cast<int>(i));
  }
  Parcel parcel;
  parcel.add(segments);
  SentSegments sent;
  sent.rows_at = parcel.add(std::span<const int>(row_segments));
  sent.buffer = card.send(parcel);
  return sent;
}

/** Memory for what the kernels hand each other. */
struct Scratch {
  Buffer conv;
  Buffer dots;
  Buffer decay;
  Buffer beta;

  Scratch(Card& card, std::size_t rows, const DeltaNetShape& shape)
      : conv(card.memory().take(4 * rows * shape.qkv_dim())),
        dots(card.memory().take(4 * rows * shape.n_key_heads)),
        decay(card.memory().take(4 * rows * shape.n_value_heads)),
        beta(card.memory().take(4 * rows * shape.n_value_heads)) {}
};

struct Recurrence {
  const char* kernel = nullptr;
  std::size_t shared_bytes = 0;
};

/** In registers where a thread's share of the keys' channels is known. */
Recurrence recurrence_of(int key_dim) {
  switch (key_dim) {
    case 64:
      return {"delta_recur_64"};
    case 128:
      return {"delta_recur_128"};
    case 256:
      return {"delta_recur_256"};
    default: {
      const auto dim = static_cast<std::size_t>(key_dim);
      // The strip of the state, q, k, and the sums of four parts.
      return {
          "delta_recur",
          4 * (dim * kStateColumns + 2 * dim + std::size_t{8} * kStateColumns)};
    }
  }
}

void launch_all(
    Card& card,
    const DeltaNet& args,
    std::size_t rows,
    std::size_t segments) {
  const int channels =
      2 * args.n_key_heads * args.key_dim + args.n_value_heads * args.value_dim;
  const auto heads = static_cast<std::size_t>(args.n_value_heads);
  Grid by_channel = grid_of(channels);
  by_channel.y = (rows + kConvRows - 1) / kConvRows;
  card.launch("delta_conv", by_channel, args);
  by_channel.y = segments;
  card.launch("delta_keep_rows", by_channel, args);
  card.launch(
      "delta_prepare",
      {.x = rows,
       .y = static_cast<std::size_t>(args.n_key_heads),
       .threads = 32},
      args);
  const Recurrence recurrence = recurrence_of(args.key_dim);
  card.launch(
      recurrence.kernel,
      {.x = static_cast<std::size_t>(
           (args.value_dim + kStateColumns - 1) / kStateColumns),
       .y = heads,
       .z = segments,
       .threads = 128,
       .shared_bytes = recurrence.shared_bytes},
      args);
  card.launch("delta_gate", {.x = rows, .y = heads, .threads = 64}, args);
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
    DeltaNet net,
    std::size_t rows,
    const DeltaNetShape& shape,
    std::span<const StateSegment> segments) {
  const SentSegments sent = send(card, segments);
  const Scratch scratch(card, rows, shape);
  net.segments = pointer_of<const StateSegment>(*sent.buffer);
  net.rows = static_cast<int>(rows);
  net.row_segments = pointer_of<const int>(*sent.buffer + sent.rows_at);
  net.conv = pointer_of<float>(*scratch.conv);
  net.dots = pointer_of<float>(*scratch.dots);
  net.decay = pointer_of<float>(*scratch.decay);
  net.beta = pointer_of<float>(*scratch.beta);
  launch_all(card, net, rows, segments.size());
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
  const auto floats = [&](const mx::array& x) {
    return floats_of(kFunction, card, x);
  };
  const DeltaNet net{
      .n_key_heads = shape.n_key_heads,
      .n_value_heads = shape.n_value_heads,
      .key_dim = shape.key_dim,
      .value_dim = shape.value_dim,
      .conv_kernel = shape.conv_kernel,
      .norm_eps = weights.norm_eps,
      .qkv = floats(input.qkv),
      .z = floats(input.z),
      .b = floats(input.b),
      .a = floats(input.a),
      .conv_weight = floats(weights.conv),
      .a_log = floats(weights.a_log),
      .dt_bias = floats(weights.dt_bias),
      .norm = floats(weights.norm),
      .y = new_floats_of(card, y)};
  const std::vector<StateSegment> found = with_rows(segments);
  if (const char* kernel = step_kernel(shape, found)) {
    launch_step(card, kernel, net, found);
  } else {
    launch_rows(card, net, static_cast<std::size_t>(T), shape, found);
  }
  return y;
}

} // namespace optiq::kernels::cuda
