#include <algorithm>
#include <cstddef>
#include <optional>

#include "optiq/kernels/cuda/gradients.h"
#include "optiq/kernels/cuda/head_numbers.h"
#include "optiq/kernels/cuda/operations.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/segment_checks.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::cuda::gradients {
namespace {

constexpr const char* kFunction = "attend";

// Rows of queries whose scores are there at once.
constexpr int kQueryBlock = 512;

/** Numbers on the card. */
struct SentNumbers {
  Buffer buffer;
  const int* positions = nullptr;
  const float* frequencies = nullptr;
  const float* growth = nullptr;
  int half = 0;
  int frequencies_stride = 0;

  SentNumbers(
      Card& card,
      std::span<const Segment> segments,
      const AttentionRule& rule)
      : half(
            rule.rope ? static_cast<int>(rule.rope->inverse_frequencies.size())
                      : 0) {
    const HeadNumbers numbers(segments, rule);
    Parcel parcel;
    const std::size_t positions_at = parcel.add(std::span(numbers.positions));
    const std::size_t frequencies_at =
        parcel.add(std::span(numbers.frequencies));
    const std::size_t growth_at = parcel.add(std::span(numbers.growth));
    buffer = card.send(parcel);
    positions = pointer_of<const int>(*buffer + positions_at);
    frequencies = pointer_of<const float>(*buffer + frequencies_at);
    growth = numbers.growth.empty()
        ? nullptr
        : pointer_of<const float>(*buffer + growth_at);
    frequencies_stride = numbers.frequencies_stride;
  }
};

/** An RMS norm of every head, or of all of a row together, or none. */
struct NormedHeads {
  Card& card;
  std::optional<mx::array> weight;
  float eps;

  mx::array forward(const mx::array& x) const {
    return weight
        ? reshape(card, cuda::normalize(card, parts(x), norm()), x.shape())
        : x;
  }
  /** dL/dx. */
  mx::array back(const mx::array& dy, const mx::array& x) const {
    return weight
        ? reshape(card, normalize(card, parts(dy), parts(x), norm()), x.shape())
        : dy;
  }

 private:
  mx::array parts(const mx::array& x) const {
    const int width = weight->shape(0);
    return reshape(card, x, {static_cast<int>(x.size()) / width, width});
  }
  Norm norm() const {
    return {.weight = *weight, .eps = eps};
  }
};

/** The heads of queries or of keys, between their projection and attention:
 * normed, turned, and grown. */
class PlacedHeads {
 public:
  PlacedHeads(
      Card& card,
      const AttentionRule& rule,
      const SentNumbers& numbers,
      int heads,
      const std::optional<mx::array>& norm,
      const float* growth)
      : card_(card),
        rule_(rule),
        numbers_(numbers),
        heads_(heads),
        norm_{card, norm, rule.norm_eps},
        growth_(growth) {}

  /** x [T, heads * head_dim]. */
  mx::array forward(const mx::array& x) const {
    return turned(norm_.forward(x), 1.f);
  }
  /** dL/dx. */
  mx::array back(const mx::array& dheads, const mx::array& x) const {
    return norm_.back(turned(dheads, -1.f), x);
  }

 private:
  mx::array turned(const mx::array& x, float direction) const {
    if (numbers_.half == 0 && growth_ == nullptr) {
      return x;
    }
    mx::array y = card_.make_array(x.shape());
    const TurnHeads args{
        .x = floats_of(kFunction, card_, x),
        .y = new_floats_of(card_, y),
        .n_heads = heads_,
        .head_dim = rule_.head_dim,
        .positions = numbers_.positions,
        .frequencies = numbers_.frequencies,
        .half = numbers_.half,
        .frequencies_stride = numbers_.frequencies_stride,
        .is_interleaved = rule_.rope && rule_.rope->is_interleaved ? 1 : 0,
        .scale = rule_.rope ? rule_.rope->scale : 1.f,
        .growth = growth_,
        .direction = direction};
    card_.launch(
        "turn_heads",
        {.x = static_cast<std::size_t>(x.shape(0)),
         .y = static_cast<std::size_t>(heads_),
         .threads = 64},
        args);
    return y;
  }

  Card& card_;
  const AttentionRule& rule_;
  const SentNumbers& numbers_;
  int heads_;
  NormedHeads norm_;
  const float* growth_; // [T] or null
};

/** Where floats of heads begin, and what lies from row to row. */
struct HeadRows {
  float* data;
  int heads;
  int dim;

  long long stride() const {
    return static_cast<long long>(heads) * dim;
  }
  float* row(int index) const {
    return data + index * stride();
  }
  /** Rows from `first` on, of heads each of which `group` others share. */
  Factor factor(int first, int group = 1) const {
    return {
        .data = row(first),
        .type = Number::Float32,
        .factor = 1.f,
        .row = stride(),
        .column = 1,
        .batch = dim,
        .group = group};
  }
};

/** What attention reads, and what comes back. */
struct Attended {
  HeadRows q;
  HeadRows k;
  HeadRows v;
  HeadRows dy;
  HeadRows y; // no data: not wanted
  HeadRows dq;
  HeadRows dk;
  HeadRows dv;
};

/** One sequence, a block of queries after another. */
class SequenceBack {
 public:
  SequenceBack(
      Card& card,
      const AttentionRule& rule,
      const Attended& arrays,
      const Segment& segment,
      int window)
      : card_(card),
        rule_(rule),
        arrays_(arrays),
        segment_(segment),
        window_(window),
        group_(rule.n_heads / rule.n_kv_heads) {
    const std::size_t floats = std::size_t{1} * rule.n_heads *
        std::min(kQueryBlock, segment.rows) * segment.rows;
    scores_ = card.memory().take(sizeof(float) * floats);
    dscores_ = card.memory().take(sizeof(float) * floats);
  }

  void run() {
    for (int first = 0; first < segment_.rows; first += kQueryBlock) {
      first_ = first;
      rows_ = std::min(kQueryBlock, segment_.rows - first);
      first_key_ = first_seen(window_, first);
      keys_ = first + rows_ - first_key_;
      make_scores(arrays_.q, arrays_.k, *scores_);
      make_scores(arrays_.dy, arrays_.v, *dscores_);
      card_.launch(
          "score_gradient",
          {.x = static_cast<std::size_t>(rows_),
           .y = static_cast<std::size_t>(rule_.n_heads),
           .threads = 256},
          ScoreGradient{
              .scores = pointer_of<float>(*scores_),
              .dscores = pointer_of<float>(*dscores_),
              .rows = rows_,
              .keys = keys_,
              .first_row = first_,
              .first_key = first_key_,
              .window = window_,
              .scale = rule_.scores.scale,
              .softcap = rule_.scores.softcap});
      if (arrays_.y.data != nullptr) {
        onto_rows(*scores_, arrays_.v, arrays_.y);
      }
      onto_rows(*dscores_, arrays_.k, arrays_.dq);
      onto_keys(*dscores_, arrays_.q, arrays_.dk);
      onto_keys(*scores_, arrays_.dy, arrays_.dv);
    }
  }

 private:
  int row() const {
    return segment_.first_row + first_;
  }
  int key() const {
    return segment_.first_row + first_key_;
  }
  /** [rows, keys] of every head, or of every `group`th. */
  Factor score_factor(DevicePointer scores, int head, int group) const {
    const long long of_head = static_cast<long long>(rows_) * keys_;
    return {
        .data = pointer_of<float>(scores) + head * of_head,
        .type = Number::Float32,
        .factor = 1.f,
        .row = keys_,
        .column = 1,
        .batch = group * of_head,
        .group = 1};
  }
  void make_scores(
      const HeadRows& queries,
      const HeadRows& keys,
      DevicePointer to) const {
    multiply_floats(
        card_,
        {.a = queries.factor(row()),
         .b = transposed(keys.factor(key(), group_)),
         .c = pointer_of<float>(to),
         .c_row = keys_,
         .c_batch = static_cast<long long>(rows_) * keys_,
         .rows = rows_,
         .columns = keys_,
         .inner = rule_.head_dim,
         .factor = 1.f,
         .accumulates = 0},
        rule_.n_heads);
  }
  void onto_rows(DevicePointer scores, const HeadRows& keys, const HeadRows& to)
      const {
    multiply_floats(
        card_,
        {.a = score_factor(scores, 0, 1),
         .b = keys.factor(key(), group_),
         .c = to.row(row()),
         .c_row = to.stride(),
         .c_batch = rule_.head_dim,
         .rows = rows_,
         .columns = rule_.head_dim,
         .inner = keys_,
         .factor = 1.f,
         .accumulates = 0},
        rule_.n_heads);
  }
  /** Added to what is there, one after another of a kv head's query heads. */
  void onto_keys(
      DevicePointer scores,
      const HeadRows& queries,
      const HeadRows& to) const {
    for (int member = 0; member < group_; ++member) {
      Factor of_member = queries.factor(row());
      of_member.data = static_cast<const float*>(of_member.data) +
          std::ptrdiff_t{1} * member * rule_.head_dim;
      of_member.batch *= group_;
      multiply_floats(
          card_,
          {.a = transposed(score_factor(scores, member, group_)),
           .b = of_member,
           .c = to.row(key()),
           .c_row = to.stride(),
           .c_batch = rule_.head_dim,
           .rows = keys_,
           .columns = rule_.head_dim,
           .inner = rows_,
           .factor = 1.f,
           .accumulates = 1},
          rule_.n_kv_heads);
    }
  }

  Card& card_;
  const AttentionRule& rule_;
  const Attended& arrays_;
  const Segment& segment_;
  int window_;
  int group_;
  Buffer scores_;
  Buffer dscores_;
  int first_ = 0; // of the block's rows, in the sequence
  int rows_ = 0;
  int first_key_ = 0;
  int keys_ = 0;
};

void check(
    const mx::array& dy,
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments) {
  const int rows = q.ndim() == 0 ? 0 : q.shape(0);
  const int width = rule.n_heads * rule.head_dim;
  check_whole_sequences(kFunction, segments, rows);
  require_shape(
      kFunction, "q", q, {rows, rule.has_output_gate ? 2 * width : width});
  require_shape(kFunction, "k", k, {rows, rule.n_kv_heads * rule.head_dim});
  require_shape(kFunction, "v", v, k.shape());
  require_shape(kFunction, "dy", dy, {rows, width});
}

/** Queries and gates that lie head by head. */
struct GatedQueries {
  Card& card;
  mx::Shape shape; // of either, [T, n_heads * head_dim]
  int heads;
  int dim;

  mx::array part(const mx::array& both, int begin) const {
    const mx::array by_head = reshape(card, both, {shape[0] * heads, 2 * dim});
    return reshape(card, cuda::columns(card, by_head, begin, dim), shape);
  }
  mx::array joined(const mx::array& queries, const mx::array& gates) const {
    const mx::Shape by_head{shape[0] * heads, dim};
    const mx::array both = add(
        card,
        gradients::columns(card, reshape(card, queries, by_head), 0, 2 * dim),
        gradients::columns(card, reshape(card, gates, by_head), dim, 2 * dim));
    return reshape(card, both, {shape[0], 2 * heads * dim});
  }
};

mx::array zeros(Card& card, const mx::Shape& shape) {
  mx::array x = card.make_array(shape);
  card.fill_zero(card.address("zeros", x), x.nbytes());
  return x;
}

/** dL/d placed heads, and y where it is wanted. */
struct HeadGradients {
  mx::array y;
  mx::array q;
  mx::array k;
  mx::array v;
};

/** Of placed heads and dy past the gate. */
HeadGradients attend_back(
    Card& card,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    int window,
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const mx::array& dy,
    bool wants_y) {
  HeadGradients to{
      wants_y ? card.make_array(dy.shape()) : dy,
      card.make_array(dy.shape()),
      zeros(card, k.shape()),
      zeros(card, v.shape())};
  const auto heads = [&](const mx::array& x, int n) {
    return HeadRows{
        pointer_of<float>(card.address(kFunction, x)), n, rule.head_dim};
  };
  Attended arrays{
      .q = heads(q, rule.n_heads),
      .k = heads(k, rule.n_kv_heads),
      .v = heads(v, rule.n_kv_heads),
      .dy = heads(dy, rule.n_heads),
      .y = heads(to.y, rule.n_heads),
      .dq = heads(to.q, rule.n_heads),
      .dk = heads(to.k, rule.n_kv_heads),
      .dv = heads(to.v, rule.n_kv_heads)};
  if (!wants_y) {
    arrays.y.data = nullptr;
  }
  for (const Segment& segment : segments) {
    if (segment.rows > 0) {
      SequenceBack(card, rule, arrays, segment, window).run();
    }
  }
  return to;
}

} // namespace

AttentionGradients attend(
    Card& card,
    const mx::array& dy,
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    int window) {
  check(dy, q, k, v, rule, segments);
  const GatedQueries gated{card, dy.shape(), rule.n_heads, rule.head_dim};
  const SentNumbers numbers(card, segments, rule);
  const PlacedHeads of_q{
      card, rule, numbers, rule.n_heads, rule.q_norm, numbers.growth};
  const PlacedHeads of_k{
      card, rule, numbers, rule.n_kv_heads, rule.k_norm, nullptr};
  const NormedHeads of_v{card, rule.v_norm, rule.norm_eps};
  const mx::array queries = rule.has_output_gate ? gated.part(q, 0) : q;
  // What passes the gate does not depend on what it is multiplied with.
  const std::optional<mx::array> gate = rule.has_output_gate
      ? std::optional(gated.part(q, rule.head_dim))
      : std::nullopt;
  const HeadGradients d = attend_back(
      card,
      rule,
      segments,
      window,
      of_q.forward(queries),
      of_k.forward(k),
      of_v.forward(v),
      gate ? sigmoid_gate(card, dy, dy, *gate).first : dy,
      gate.has_value());
  const mx::array dq = of_q.back(d.q, queries);
  return {
      gate ? gated.joined(dq, sigmoid_gate(card, dy, d.y, *gate).second) : dq,
      of_k.back(d.k, k),
      of_v.back(d.v, v)};
}

} // namespace optiq::kernels::cuda::gradients
