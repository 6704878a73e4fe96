#include "optiq/kernels/cuda/delta_net_rows.h"

#include <numeric>

#include "optiq/kernels/cuda/pointers_impl.h"

namespace optiq::kernels::cuda {
namespace {

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

int total_rows(std::span<const StateSegment> segments) {
  return std::accumulate(
      segments.begin(),
      segments.end(),
      0,
      [](int rows, const StateSegment& segment) {
        return rows + segment.rows;
      });
}

} // namespace

DeltaNet delta_net_of(
    Card& card,
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape) {
  const auto floats = [&](const mx::array& x) {
    return floats_of("gated_delta_net", card, x);
  };
  return {
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
      .norm = floats(weights.norm)};
}

DeltaNetRows::DeltaNetRows(
    Card& card,
    const DeltaNet& net,
    std::span<const StateSegment> segments)
    : net_(net),
      channels_(
          2 * net.n_key_heads * net.key_dim +
          net.n_value_heads * net.value_dim),
      n_segments_(segments.size()) {
  net_.rows = total_rows(segments);
  std::vector<int> row_segments; // of each row
  for (std::size_t i = 0; i < segments.size(); ++i) {
    row_segments.insert(
        row_segments.end(),
        static_cast<std::size_t>(segments[i].rows),
        static_cast<int>(i));
  }
  Parcel parcel;
  parcel.add(segments);
  const std::size_t rows_at = parcel.add(std::span<const int>(row_segments));
  sent_ = card.send(parcel);
  net_.segments = pointer_of<const StateSegment>(*sent_);
  net_.row_segments = pointer_of<const int>(*sent_ + rows_at);
  const auto take = [&](int width, float*& floats) {
    Buffer buffer = card.memory().take(sizeof(float) * rows() * width);
    floats = pointer_of<float>(*buffer);
    return buffer;
  };
  conv_ = take(channels_, net_.conv);
  dots_ = take(net.n_key_heads, net_.dots);
  decay_ = take(net.n_value_heads, net_.decay);
  beta_ = take(net.n_value_heads, net_.beta);
}

void DeltaNetRows::recur(Card& card) const {
  Grid by_channel = grid_of(channels_);
  by_channel.y = (rows() + kConvRows - 1) / kConvRows;
  card.launch("delta_conv", by_channel, net_);
  card.launch(
      "delta_prepare",
      {.x = rows(),
       .y = static_cast<std::size_t>(net_.n_key_heads),
       .threads = 32},
      net_);
  const Recurrence recurrence = recurrence_of(net_.key_dim);
  card.launch(
      recurrence.kernel,
      {.x = static_cast<std::size_t>(
           (net_.value_dim + kStateColumns - 1) / kStateColumns),
       .y = static_cast<std::size_t>(net_.n_value_heads),
       .z = n_segments_,
       .threads = 128,
       .shared_bytes = recurrence.shared_bytes},
      net_);
}

} // namespace optiq::kernels::cuda
