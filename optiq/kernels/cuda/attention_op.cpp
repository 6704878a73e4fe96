#include <algorithm>
#include <array>
#include <cstring>

#include "optiq/base/error.h"
#include "optiq/kernels/cuda/attention_plan.h"
#include "optiq/kernels/cuda/head_numbers.h"
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

Sent send(Card& card, const HeadNumbers& numbers, const AttentionPlan& plan) {
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

/** Whether attention_decode.cu reads a side: bfloat16, or codes of one width
 * whose groups fill 64 channels of values. */
bool is_for_decode(const KvSide& side, bool is_key) {
  if (side.code == KvCode::Dense) {
    return side.is_half != 0;
  }
  const KvPart& part = side.parts[0];
  if (side.n_parts != 1 || part.padded != side.head_dim) {
    return false;
  }
  return side.code == KvCode::Turbo ? part.bits >= 2 && part.bits <= 4
                                    : is_key || part.group >= 64;
}

/** Which kernel attends. Rows have no say in it up to kMostEqualRows, nor
 * behind: their bits must not depend on how many there are. */
enum class Kernel {
  Decode, // attention_decode.cu
  Tiles, // attention_tiles.cu
  Plain, // attention.cu
};

Kernel choose_kernel(
    const Card& card,
    const KvShape& shape,
    Compute compute,
    int rows) {
  static constexpr std::array<std::pair<int, int>, 4> kWidths{
      {{16, 16}, {4, 4}, {8, 4}, {8, 8}}};
  const int dim = shape.key.head_dim;
  if (dim != 64 && dim != 128 && dim != 256) {
    return Kernel::Plain;
  }
  const bool is_dense = shape.key.code == KvCode::Dense;
  if (rows <= kMostEqualRows && compute == Compute::Fast &&
      is_dense == (shape.value.code == KvCode::Dense) &&
      is_for_decode(shape.key, true) && is_for_decode(shape.value, false) &&
      static_cast<std::size_t>(
          decode_bytes(shape, decode_queries(dim, is_dense) / 4)) <=
          card.info().shared_bytes) {
    return Kernel::Decode;
  }
  const std::pair widths{bits_of_tiles(shape.key), bits_of_tiles(shape.value)};
  return std::find(kWidths.begin(), kWidths.end(), widths) != kWidths.end()
      ? Kernel::Tiles
      : Kernel::Plain;
}

/** Of PlaceHeads: turbo's codes are centroids of any width. */
int operand_bits_of(const KvSide& key) {
  constexpr int kDenseBits = 16;
  constexpr int kWhole = 8;
  return key.code == KvCode::Dense ? kDenseBits
      : key.code == KvCode::Affine ? key.parts[0].bits
                                   : kWhole;
}

/** Queries as attention reads them, on the card. */
struct PlacedQueries {
  mx::array q; // [T, n_heads * head_dim], or operands in their place
  Buffer factors; // of operands
};

/** Queries placed; keys and values into the blocks. */
PlacedQueries place_heads(
    Card& card,
    const Projected& x,
    const AttentionRule& rule,
    const KvShape& shape,
    Kernel kernel,
    const HeadNumbers& numbers,
    const Sent& sent) {
  const int rows = x.q.shape(0);
  const bool appends = x.k.shape(0) > 0;
  mx::array to_q = card.make_array({rows, rule.n_heads * rule.head_dim});
  Buffer factors = card.memory().take(
      sizeof(float) * static_cast<std::size_t>(rows) * rule.n_heads);
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
      .to_q = new_floats_of(card, to_q),
      .operand_bits = kernel == Kernel::Decode ? operand_bits_of(shape.key) : 0,
      .q_factors = pointer_of<float>(*factors)};
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
  return {std::move(to_q), std::move(factors)};
}

/** A kernel's launch. */
struct Launch {
  std::string name;
  unsigned threads = 0;
  std::size_t shared_bytes = 0;
};

Launch launch_of(Kernel kernel, const KvShape& shape, int tile_queries) {
  constexpr unsigned kTilesThreads = 256;
  const int dim = shape.key.head_dim;
  if (kernel == Kernel::Decode) {
    const bool is_dense = shape.key.code == KvCode::Dense;
    const int tiles = tile_queries / 4;
    return {
        fmt::format(
            "attend_decode_{}_{}_{}", is_dense ? "dense" : "codes", dim, tiles),
        32U * decode_warps(dim, is_dense),
        static_cast<std::size_t>(decode_bytes(shape, tiles))};
  }
  if (kernel == Kernel::Tiles) {
    const int groups = groups_of(shape.key) + groups_of(shape.value);
    return {
        fmt::format(
            "attend_tiles_{}_{}_{}",
            dim,
            bits_of_tiles(shape.key),
            bits_of_tiles(shape.value)),
        kTilesThreads,
        static_cast<std::size_t>(attend_tiles_bytes(dim, groups))};
  }
  const int strips = dim <= 128 ? 1 : dim <= 256 ? 2 : 4;
  const auto floats = static_cast<std::size_t>(tile_queries) * dim +
      static_cast<std::size_t>(kChunkTokens) * (dim + kPad);
  return {
      fmt::format("attend_{}_{}", tile_queries, strips), kThreads, 4 * floats};
}

/** What attention_decode.cu is told beside what every kernel is. */
void tell_decode(int tiles, Attend& args) {
  constexpr unsigned kOne = 1U << 20;
  const auto group =
      static_cast<unsigned>(args.n_heads / args.shape.n_kv_heads);
  args.memory = decode_memory(args.shape, tiles);
  args.group = static_cast<int>(group);
  args.group_inverse = (kOne + group - 1) / group;
}

/** Attention: [T, n_heads * head_dim]. */
mx::array attend_placed(
    Card& card,
    const PlacedQueries& placed,
    const mx::array& q,
    const AttentionRule& rule,
    const KvFormat& format,
    Kernel kernel,
    const AttentionPlan& plan,
    const Sent& sent) {
  const KvShape& shape = layout_of(kFunction, card, format).shape;
  const int rows = q.shape(0);
  const auto dim = static_cast<std::size_t>(rule.head_dim);
  const std::size_t partials =
      static_cast<std::size_t>(rows) * rule.n_heads * plan.slots;
  const Buffer buffer = card.memory().take(4 * partials * (dim + 2));
  mx::array y = card.make_array(placed.q.shape());
  const std::size_t counters = plan.slots > 1
      ? plan.tiles * static_cast<std::size_t>(rule.n_kv_heads)
      : 0;
  Attend args{
      .shape = shape,
      .items = sent.items,
      .blocks = sent.blocks,
      .q = floats_of(kFunction, card, placed.q),
      .n_heads = rule.n_heads,
      .window = format.window,
      .softcap = rule.scores.softcap,
      .slots = plan.slots,
      .partials = pointer_of<float>(*buffer),
      .arrived = pointer_of<unsigned>(card.counters(counters)),
      .sums = pointer_of<float>(*buffer) + partials * dim,
      .q_factors = pointer_of<const float>(*placed.factors),
      .rotation = shape.value.rotation,
      .gate = rule.has_output_gate
          ? floats_of(kFunction, card, q) + rule.head_dim
          : nullptr,
      .y = new_floats_of(card, y)};
  if (kernel == Kernel::Decode) {
    tell_decode(plan.tile_queries / 4, args);
  }
  const Launch launch = launch_of(kernel, shape, plan.tile_queries);
  card.launch(
      launch.name.c_str(),
      {.x = plan.items.size(),
       .y = static_cast<std::size_t>(rule.n_kv_heads),
       .threads = launch.threads,
       .shared_bytes = launch.shared_bytes},
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
  AttentionLoad load{
      .n_heads = rule.n_heads,
      .n_kv_heads = rule.n_kv_heads,
      .head_dim = rule.head_dim,
      .window = format.window,
      .multiprocessors = card.info().multiprocessors};
  const KvShape& shape = layout.shape;
  const Kernel kernel = choose_kernel(card, shape, format.compute, q.shape(0));
  if (kernel == Kernel::Decode) {
    const bool is_dense = shape.key.code == KvCode::Dense;
    load.most_queries = decode_queries(rule.head_dim, is_dense);
    load.span_tokens = decode_span(rule.head_dim, is_dense);
  }
  const AttentionPlan plan = plan_attention(segments, load);
  const HeadNumbers numbers(segments, rule);
  const Sent sent = send(card, numbers, plan);
  const PlacedQueries placed =
      place_heads(card, {q, k, v}, rule, shape, kernel, numbers, sent);
  return attend_placed(card, placed, q, rule, format, kernel, plan, sent);
}

} // namespace optiq::kernels::cuda
