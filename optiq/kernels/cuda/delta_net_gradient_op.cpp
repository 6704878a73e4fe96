#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/kernels/cuda/delta_net_rows.h"
#include "optiq/kernels/cuda/gradients.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/layer_checks.h"
#include "optiq/kernels/segment_checks.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::cuda::gradients {
namespace {

constexpr const char* kFunction = "gated_delta_net";

/** Segments with rows, each with a state of zeros. */
struct FreshStates {
  Buffer memory;
  std::vector<StateSegment> segments;
  int most_rows = 0;

  FreshStates(
      Card& card,
      std::span<const Segment> all,
      const DeltaNetShape& shape) {
    const std::size_t each =
        sizeof(float) * (shape.state_floats() + shape.conv_floats());
    memory = card.memory().take(each * all.size());
    card.fill_zero(*memory, each * all.size());
    for (const Segment& segment : all) {
      if (segment.rows > 0) {
        segments.push_back(
            {.first_row = segment.first_row,
             .rows = segment.rows,
             .block = *memory + each * segments.size()});
        most_rows = std::max(most_rows, segment.rows);
      }
    }
  }
};

/** The kernel for heads of so many keys' channels, and for how many it has
 * room. */
struct Recurrence {
  const char* kernel;
  int channels;
};

Recurrence recurrence_back(int key_dim) {
  constexpr Recurrence kAll[] = {
      {"delta_recur_gradient_128", 128}, {"delta_recur_gradient_256", 256}};
  for (const Recurrence& each : kAll) {
    if (key_dim <= each.channels) {
      return each;
    }
  }
  fail(
      ErrorKind::Unsupported,
      "[{}] found heads of {} channels, expected at most 256 for gradients on "
      "a card. Choose --device cpu.",
      kFunction,
      key_dim);
}

/** Memory for what the kernels of the way back hand each other. */
class Scratch {
 public:
  explicit Scratch(Card& card) : card_(card) {}

  float* floats(std::size_t n) {
    buffers_.push_back(card_.memory().take(sizeof(float) * n));
    return pointer_of<float>(*buffers_.back());
  }

 private:
  Card& card_;
  std::vector<Buffer> buffers_;
};

/** dL/d what the recurrence gave, and dz. */
float* gate_back(
    Card& card,
    Scratch& scratch,
    const DeltaNetRows& rows,
    const mx::array& dy,
    const mx::array& dz) {
  const DeltaNet& net = rows.net();
  float* dstate = scratch.floats(dy.size());
  card.launch(
      "delta_gate_gradient",
      {.x = rows.rows(),
       .y = static_cast<std::size_t>(net.n_value_heads),
       .threads = 64},
      DeltaGateGradient{
          .y = net.y,
          .z = net.z,
          .norm = net.norm,
          .eps = net.norm_eps,
          .value_dim = net.value_dim,
          .dout = floats_of(kFunction, card, dy),
          .dy = dstate,
          .dz = new_floats_of(card, dz)});
  return dstate;
}

/** Through the recurrence, the norms of heads, the gates and the conv. */
void recur_back(
    Card& card,
    Scratch& scratch,
    const DeltaNetRows& rows,
    int most_rows, // of a segment
    const float* dstate,
    const DeltaNetInput& to) {
  const DeltaNet& net = rows.net();
  const Recurrence recurrence = recurrence_back(net.key_dim);
  const auto heads = static_cast<std::size_t>(net.n_value_heads);
  const std::size_t strips =
      (net.value_dim + kStateColumns - 1) / kStateColumns;
  const std::size_t chunks = (most_rows + kGradientChunk - 1) / kGradientChunk;
  const std::size_t walks = rows.segments() * heads * strips;
  const std::size_t strip_floats =
      std::size_t{kStateColumns} * recurrence.channels;
  const std::size_t shares = strips * rows.rows() * heads;
  const DeltaGradient args{
      .net = net,
      .dy = dstate,
      .kept = scratch.floats(walks * chunks * strip_floats),
      .states = scratch.floats(walks * kGradientChunk * strip_floats),
      .chunks = static_cast<int>(chunks),
      .strips = static_cast<int>(strips),
      .dq = scratch.floats(shares * net.key_dim),
      .dk = scratch.floats(shares * net.key_dim),
      .ddecay = scratch.floats(shares),
      .dbeta = scratch.floats(shares),
      .dconv = scratch.floats(to.qkv.size()),
      .dqkv = new_floats_of(card, to.qkv),
      .db = new_floats_of(card, to.b),
      .da = new_floats_of(card, to.a)};
  card.launch(
      recurrence.kernel,
      {.x = strips, .y = heads, .z = rows.segments(), .threads = 128},
      args);
  card.launch(
      "delta_prepare_gradient",
      {.x = rows.rows(),
       .y = static_cast<std::size_t>(net.n_key_heads),
       .threads = 32},
      args);
  card.launch(
      "delta_conv_gradient", grid_of_rows(rows.rows(), rows.channels()), args);
}

} // namespace

DeltaNetInput gated_delta_net(
    Card& card,
    const mx::array& dy,
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const Segment> segments) {
  check_delta_net_shapes(kFunction, input, weights, shape);
  check_whole_sequences(kFunction, segments, input.qkv.shape(0));
  require_shape(kFunction, "dy", dy, input.z.shape());
  DeltaNetInput to{
      card.make_array(input.qkv.shape()),
      card.make_array(input.z.shape()),
      card.make_array(input.b.shape()),
      card.make_array(input.a.shape())};
  const FreshStates states(card, segments, shape);
  if (states.segments.empty()) {
    return to;
  }
  Scratch scratch(card);
  DeltaNet net = delta_net_of(card, input, weights, shape);
  net.y = scratch.floats(input.z.size());
  const DeltaNetRows rows(card, net, states.segments);
  rows.recur(card);
  const float* dstate = gate_back(card, scratch, rows, dy, to.z);
  recur_back(card, scratch, rows, states.most_rows, dstate, to);
  return to;
}

} // namespace optiq::kernels::cuda::gradients
