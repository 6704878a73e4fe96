#include <algorithm>

#include "optiq/kernels/cuda/arguments.h"
#include "optiq/kernels/cuda/operations.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/layer_checks.h"
#include "optiq/kernels/segment_checks.h"

namespace optiq::kernels::cuda {
namespace {

constexpr const char* kFunction = "gated_delta_net";

/** Segments with rows, and the segment of each row, in one parcel. */
struct SentSegments {
  std::size_t n = 0;
  Buffer buffer;
  std::size_t rows_at = 0;
};

SentSegments send(Card& card, std::span<const Segment> segments) {
  std::vector<StateSegment> with_rows;
  std::vector<int> row_segments;
  for (const Segment& segment : segments) {
    if (segment.rows > 0) {
      row_segments.insert(
          row_segments.end(),
          static_cast<std::size_t>(segment.rows),
          static_cast<int>(with_rows.size()));
      with_rows.push_back(
          {.first_row = segment.first_row,
           .rows = segment.rows,
           .block = static_cast<unsigned long long>(segment.blocks.front())});
    }
  }
  Parcel parcel;
  parcel.add(std::span<const StateSegment>(with_rows));
  SentSegments sent{.n = with_rows.size()};
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

void launch_all(
    Card& card,
    const DeltaNet& args,
    std::size_t rows,
    std::size_t segments) {
  const int channels =
      2 * args.n_key_heads * args.key_dim + args.n_value_heads * args.value_dim;
  const auto heads = static_cast<std::size_t>(args.n_value_heads);
  Grid by_channel = grid_of(channels);
  by_channel.y = rows;
  card.launch("delta_conv", by_channel, args);
  by_channel.y = segments;
  card.launch("delta_keep_rows", by_channel, args);
  card.launch(
      "delta_prepare",
      {.x = rows,
       .y = static_cast<std::size_t>(args.n_key_heads),
       .threads = 32},
      args);
  const auto dim = static_cast<std::size_t>(args.key_dim);
  // The strip of the state, q, k, and the sums of four parts.
  const std::size_t floats =
      dim * kStateColumns + 2 * dim + 2 * 4 * kStateColumns;
  card.launch(
      "delta_recur",
      {.x = static_cast<std::size_t>(
           (args.value_dim + kStateColumns - 1) / kStateColumns),
       .y = heads,
       .z = segments,
       .threads = 128,
       .shared_bytes = 4 * floats},
      args);
  card.launch("delta_gate", {.x = rows, .y = heads, .threads = 64}, args);
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
  const auto rows = static_cast<std::size_t>(T);
  const SentSegments sent = send(card, segments);
  const Scratch scratch(card, rows, shape);
  mx::array y = card.make_array({T, shape.n_value_heads * shape.value_dim});
  const auto floats = [&](const mx::array& x) {
    return floats_of(kFunction, card, x);
  };
  const DeltaNet args{
      .segments = pointer_of<const StateSegment>(*sent.buffer),
      .row_segments = pointer_of<const int>(*sent.buffer + sent.rows_at),
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
      .conv = pointer_of<float>(*scratch.conv),
      .dots = pointer_of<float>(*scratch.dots),
      .decay = pointer_of<float>(*scratch.decay),
      .beta = pointer_of<float>(*scratch.beta),
      .y = new_floats_of(card, y)};
  launch_all(card, args, rows, sent.n);
  return y;
}

} // namespace optiq::kernels::cuda
