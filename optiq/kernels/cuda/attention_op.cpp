#include <algorithm>
#include <array>
#include <cstring>

#include "optiq/base/error.h"
#include "optiq/kernels/cuda/attention_plan.h"
#include "optiq/kernels/cuda/kv_layout.h"
#include "optiq/kernels/cuda/operations.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/layer_checks.h"
#include "optiq/kernels/segment_checks.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::cuda {
namespace {

constexpr const char* kFunction = "attend";
constexpr unsigned kThreads = 128;
constexpr int kPad = 4; // floats behind a token's channels (attention.cu)

/** A norm's gains, and whether they are of whole rows. */
struct HeadNorm {
  const float* weight = nullptr;
  int is_of_rows = 0;
};

HeadNorm norm_of(
    const Card& card,
    const std::optional<mx::array>& weight,
    int n_heads,
    int head_dim) {
  if (!weight) {
    return {};
  }
  const bool is_of_heads = weight->size() == static_cast<std::size_t>(head_dim);
  require_shape(
      kFunction,
      "norm",
      *weight,
      {is_of_heads ? head_dim : n_heads * head_dim});
  return {floats_of(kFunction, card, *weight), is_of_heads ? 0 : 1};
}

/** The numbers of one call that travel to the card, and where they lie. */
struct Numbers {
  std::vector<std::int32_t> positions; // [T]
  std::vector<float> frequencies; // one row, or one per row of the batch
  std::vector<float> growth; // [T] or none
  int frequencies_stride = 0;

  Numbers(std::span<const Segment> segments, const AttentionRule& rule)
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
};

/** Numbers and plan, and where they lie on the card: there, or on their way
 * with place_heads. */
struct Sent {
  Parcel parcel;
  Buffer buffer;
  bool is_there = false;
  const AttendItem* items = nullptr;
  const unsigned long long* blocks = nullptr;
  const unsigned long long* row_blocks = nullptr;
  const int* positions = nullptr;
  const float* frequencies = nullptr;
  const float* growth = nullptr;
};

Sent send(Card& card, const Numbers& numbers, const AttentionPlan& plan) {
  constexpr std::size_t kMostSent = sizeof(std::uint32_t) * kManyPlaceWords;
  Sent sent;
  const auto add = [&](const auto& values) {
    return sent.parcel.add(std::span(values));
  };
  const std::size_t items = add(plan.items);
  const std::size_t blocks = add(plan.blocks);
  const std::size_t row_blocks = add(plan.row_blocks);
  const std::size_t positions = add(numbers.positions);
  const std::size_t frequencies = add(numbers.frequencies);
  const std::size_t growth = add(numbers.growth);
  const std::size_t bytes = sent.parcel.bytes().size();
  sent.is_there = bytes > kMostSent;
  sent.buffer =
      sent.is_there ? card.send(sent.parcel) : card.memory().take(bytes);
  const DevicePointer at = *sent.buffer;
  sent.items = pointer_of<const AttendItem>(at + items);
  sent.blocks = pointer_of<const unsigned long long>(at + blocks);
  sent.row_blocks = pointer_of<const unsigned long long>(at + row_blocks);
  sent.positions = pointer_of<const int>(at + positions);
  sent.frequencies = numbers.frequencies.empty()
      ? nullptr
      : pointer_of<const float>(at + frequencies);
  sent.growth =
      numbers.growth.empty() ? nullptr : pointer_of<const float>(at + growth);
  return sent;
}

/** Places heads; what is not there yet goes with the launch. */
template <int kWords>
void launch_placing(
    Card& card,
    const Grid& grid,
    const PlaceHeads& place,
    const Sent& sent) {
  PlaceHeadsSending<kWords> args;
  args.place = place;
  args.to = mutable_words_of(*sent.buffer);
  args.words = 0;
  if (!sent.is_there) {
    const std::span<const std::byte> bytes = sent.parcel.bytes();
    std::memcpy(args.data, bytes.data(), bytes.size());
    args.words = static_cast<int>((bytes.size() + 3) / 4);
  }
  const std::string kernel = fmt::format("place_heads_{}", kWords);
  card.launch(kernel.c_str(), grid, args);
}

/** q, k and v of a call. */
struct Projected {
  const mx::array& q;
  const mx::array& k;
  const mx::array& v;
};

/** Queries as attention reads them; keys and values into the blocks. */
mx::array place_heads(
    Card& card,
    const Projected& x,
    const AttentionRule& rule,
    const KvShape& shape,
    const Numbers& numbers,
    const Sent& sent) {
  const int rows = x.q.shape(0);
  const bool appends = x.k.shape(0) > 0;
  mx::array to_q = card.make_array({rows, rule.n_heads * rule.head_dim});
  const HeadNorm q_norm =
      norm_of(card, rule.q_norm, rule.n_heads, rule.head_dim);
  const HeadNorm k_norm =
      norm_of(card, rule.k_norm, rule.n_kv_heads, rule.head_dim);
  const HeadNorm v_norm = norm_of(card, rule.v_norm, 1, rule.head_dim);
  const PlaceHeads args{
      .shape = shape,
      .q = floats_of(kFunction, card, x.q),
      .k = appends ? floats_of(kFunction, card, x.k) : nullptr,
      .v = appends ? floats_of(kFunction, card, x.v) : nullptr,
      .q_norm = q_norm.weight,
      .k_norm = k_norm.weight,
      .v_norm = v_norm.weight,
      .q_norm_is_of_rows = q_norm.is_of_rows,
      .k_norm_is_of_rows = k_norm.is_of_rows,
      .eps = rule.norm_eps,
      .n_heads = rule.n_heads,
      .q_stride = rule.has_output_gate ? 2 * rule.head_dim : rule.head_dim,
      .positions = sent.positions,
      .frequencies = sent.frequencies,
      .half = rule.rope
          ? static_cast<int>(rule.rope->inverse_frequencies.size())
          : 0,
      .frequencies_stride = numbers.frequencies_stride,
      .is_interleaved = rule.rope && rule.rope->is_interleaved ? 1 : 0,
      .rope_scale = rule.rope ? rule.rope->scale : 1.f,
      .growth = sent.growth,
      .scale = rule.scores.scale,
      .blocks = sent.row_blocks,
      .to_q = new_floats_of(card, to_q)};
  const int heads = rule.n_heads + (appends ? 2 * rule.n_kv_heads : 0);
  // Two vectors, and codes with what fills their last group.
  const std::size_t shared =
      static_cast<std::size_t>(8 * rule.head_dim) + rule.head_dim + 128;
  const Grid grid{
      .x = static_cast<std::size_t>(rows),
      .y = static_cast<std::size_t>(heads),
      .threads = kThreads,
      .shared_bytes = shared};
  const std::size_t words = sent.is_there ? 0 : sent.parcel.bytes().size() / 4;
  if (words < kFewPlaceWords) {
    launch_placing<kFewPlaceWords>(card, grid, args, sent);
  } else {
    launch_placing<kManyPlaceWords>(card, grid, args, sent);
  }
  return to_q;
}

/** Bits of a side as kernels on tensor cores read it: 16 of bfloat16, or those
 * of affine codes. 0: not for them. */
int bits_of_tiles(const KvSide& side) {
  if (side.code == KvCode::Dense) {
    return side.is_half ? 16 : 0;
  }
  const KvPart& part = side.parts[0];
  const bool is_one_width = side.n_parts == 1 && part.padded == side.head_dim;
  return side.code == KvCode::Affine && is_one_width ? part.bits : 0;
}

int groups_of(const KvSide& side) {
  return side.code == KvCode::Affine ? side.head_dim / side.parts[0].group : 0;
}

struct KernelChoice {
  std::string name;
  unsigned threads = 0;
  std::size_t shared_bytes = 0;
};

/** The kernel for a shape: on tensor cores where there is one. Rows have no say
 * in it: their bits must not depend on how many there are. */
KernelChoice choose_kernel(const KvShape& shape, int tile_queries) {
  constexpr unsigned kTilesThreads = 256;
  static constexpr std::array<std::pair<int, int>, 4> kWidths{
      {{16, 16}, {4, 4}, {8, 4}, {8, 8}}};
  const int dim = shape.key.head_dim;
  const std::pair widths{bits_of_tiles(shape.key), bits_of_tiles(shape.value)};
  if ((dim == 64 || dim == 128 || dim == 256) &&
      std::find(kWidths.begin(), kWidths.end(), widths) != kWidths.end()) {
    const int groups = groups_of(shape.key) + groups_of(shape.value);
    return {
        fmt::format("attend_tiles_{}_{}_{}", dim, widths.first, widths.second),
        kTilesThreads,
        static_cast<std::size_t>(attend_tiles_bytes(dim, groups))};
  }
  const int strips = dim <= 128 ? 1 : dim <= 256 ? 2 : 4;
  const auto floats = static_cast<std::size_t>(tile_queries) * dim +
      static_cast<std::size_t>(kChunkTokens) * (dim + kPad);
  return {
      fmt::format("attend_{}_{}", tile_queries, strips), kThreads, 4 * floats};
}

/** Attention: [T, n_heads * head_dim]. */
mx::array attend_placed(
    Card& card,
    const mx::array& placed,
    const mx::array& q,
    const AttentionRule& rule,
    const KvFormat& format,
    const AttentionPlan& plan,
    const Sent& sent) {
  const KvShape& shape = layout_of(kFunction, card, format).shape;
  const auto rows = static_cast<std::size_t>(q.shape(0));
  const std::size_t dim = static_cast<std::size_t>(rule.head_dim);
  const Buffer partials =
      card.memory().take(4 * rows * rule.n_heads * plan.slots * (dim + 2));
  mx::array y = card.make_array(placed.shape());
  const std::size_t counters = plan.slots > 1
      ? plan.tiles * static_cast<std::size_t>(rule.n_kv_heads)
      : 0;
  const Attend args{
      .shape = shape,
      .items = sent.items,
      .blocks = sent.blocks,
      .q = floats_of(kFunction, card, placed),
      .n_heads = rule.n_heads,
      .window = format.window,
      .softcap = rule.scores.softcap,
      .slots = plan.slots,
      .partials = pointer_of<float>(*partials),
      .arrived = pointer_of<unsigned>(card.counters(counters)),
      .rotation = shape.value.rotation,
      .gate = rule.has_output_gate
          ? floats_of(kFunction, card, q) + rule.head_dim
          : nullptr,
      .y = new_floats_of(card, y)};
  const KernelChoice kernel = choose_kernel(shape, plan.tile_queries);
  card.launch(
      kernel.name.c_str(),
      {.x = plan.items.size(),
       .y = static_cast<std::size_t>(rule.n_kv_heads),
       .threads = kernel.threads,
       .shared_bytes = kernel.shared_bytes},
      args);
  return y;
}

} // namespace

mx::array attend(
    Card& card,
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    const KvFormat& format) {
  const CardKvLayout& layout = layout_of(kFunction, card, format);
  check_attention_shapes(kFunction, q, k, v, rule, format);
  check_kv_segments(kFunction, segments, q.shape(0), format.window);
  const AttentionPlan plan = plan_attention(
      segments,
      {.n_heads = rule.n_heads,
       .n_kv_heads = rule.n_kv_heads,
       .head_dim = rule.head_dim,
       .window = format.window,
       .multiprocessors = card.info().multiprocessors});
  const Numbers numbers(segments, rule);
  const Sent sent = send(card, numbers, plan);
  const mx::array placed =
      place_heads(card, {q, k, v}, rule, layout.shape, numbers, sent);
  return attend_placed(card, placed, q, rule, format, plan, sent);
}

} // namespace optiq::kernels::cuda
