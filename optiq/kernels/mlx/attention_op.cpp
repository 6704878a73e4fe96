#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include <mlx/ops.h>

#include "optiq/base/error.h"
#include "optiq/kernels/layer_checks.h"
#include "optiq/kernels/mlx/kv_codec.h"
#include "optiq/kernels/mlx/operations.h"
#include "optiq/kernels/mlx/portable.h"
#include "optiq/kernels/segment_checks.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::portable {
namespace {

constexpr const char* kFunction = "attend";

/** Rows [begin, end) of the first axis. */
mx::array rows_of(const mx::array& x, int begin, int end) {
  mx::Shape start(x.ndim(), 0);
  mx::Shape stop = x.shape();
  start[0] = begin;
  stop[0] = end;
  return mx::slice(x, start, stop);
}

const KvArrays& layout_of(const KvFormat& format) {
  const auto* layout = dynamic_cast<const KvArrays*>(format.layout.get());
  if (layout == nullptr) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] format: found one without a layout of device {}, expected one "
        "that its kv_format made.",
        kFunction,
        kDeviceName);
  }
  return *layout;
}

/** Norm, where there is one, of heads or of whole rows: x [T, heads *
 * head_dim] -> [T, heads, head_dim]. */
mx::array norm_heads(
    const mx::array& x,
    int n_heads,
    const AttentionRule& rule,
    const std::optional<mx::array>& weight) {
  const mx::Shape shape{x.shape(0), n_heads, rule.head_dim};
  if (!weight || x.shape(0) == 0) {
    return mx::reshape(x, shape);
  }
  const bool is_of_heads = weight->shape(0) == rule.head_dim;
  return mx::reshape(
      rms_norm(is_of_heads ? mx::reshape(x, shape) : x, *weight, rule.norm_eps),
      shape);
}

/** q [T, H, D], grown. */
mx::array grow(
    const mx::array& q,
    const QueryGrowth& growth,
    std::span<const std::int32_t> positions) {
  std::vector<float> factors;
  for (const std::int32_t position : positions) {
    factors.push_back(growth_at(growth, position));
  }
  const mx::array by_row(
      factors.data(), mx::Shape{static_cast<int>(factors.size()), 1, 1});
  return mx::multiply(q, mx::astype(by_row, q.dtype()));
}

/** k and v [T, Hkv, D] into the blocks of every segment. */
void append(
    const mx::array& k,
    const mx::array& v,
    std::span<const Segment> segments,
    const KvArrays& layout,
    PendingBlocks& pending) {
  std::vector<mx::array> coded = layout.keys.encode(mx::astype(k, mx::float32));
  for (const mx::array& array :
       layout.values.encode(mx::astype(v, mx::float32))) {
    coded.push_back(array);
  }
  for (const Segment& s : segments) {
    for (int at = 0; at < s.rows;) {
      const int column = (s.start + at) % kKvBlockTokens;
      const int n = std::min(kKvBlockTokens - column, s.rows - at);
      const int row = s.first_row + at;
      Block& block = block_of(s.blocks[(s.start + at) / kKvBlockTokens]);
      if (block.arrays.empty()) {
        block.arrays = layout.blank;
      }
      for (std::size_t i = 0; i < coded.size(); ++i) {
        mx::array& held = block.arrays[i];
        mx::Shape start(held.ndim(), 0);
        mx::Shape stop = held.shape();
        start[0] = column;
        stop[0] = column + n;
        held = mx::slice_update(
            held, rows_of(coded[i], row, row + n), start, stop);
      }
      pending.insert(&block);
      at += n;
    }
  }
}

/** What the blocks of a segment hold from position `first` on. */
std::vector<mx::array>
held_by(const Segment& s, int first, const KvArrays& layout) {
  const int first_block = first / kKvBlockTokens;
  const int end = s.start + s.rows;
  std::vector<std::vector<mx::array>> by_array(layout.blank.size());
  for (int b = first_block; b * kKvBlockTokens < end; ++b) {
    const Block& block = block_of(s.blocks[b]);
    const auto& arrays = block.arrays.empty() ? layout.blank : block.arrays;
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      by_array[i].push_back(arrays[i]);
    }
  }
  const int before = first_block * kKvBlockTokens;
  std::vector<mx::array> held;
  for (std::vector<mx::array>& parts : by_array) {
    const mx::array all =
        parts.size() == 1 ? parts[0] : mx::concatenate(std::move(parts), 0);
    held.push_back(rows_of(all, first - before, end - before));
  }
  return held;
}

/** The rows of one segment, q [rows, H, D]. */
mx::array attend_segment(
    const mx::array& q,
    const Segment& s,
    const ScoreRule& rule,
    int window,
    const KvArrays& layout) {
  const std::vector<mx::array> held =
      held_by(s, first_seen(window, s.start), layout);
  const std::span<const mx::array> arrays(held);
  const std::size_t n_keys = layout.keys.n_arrays();
  const mx::array y = portable::attend(
      layout.keys.rotate(q),
      layout.keys.decode(arrays.first(n_keys), q.dtype()),
      layout.values.decode(arrays.subspan(n_keys), q.dtype()),
      rule,
      window);
  return layout.values.rotate_back(y);
}

/** q [T, H * D], or with a gate [T, H * 2 * D], as its parts [T, H * D]. */
std::pair<mx::array, std::optional<mx::array>> split_gate(
    const mx::array& q,
    const AttentionRule& rule) {
  if (!rule.has_output_gate) {
    return {q, std::nullopt};
  }
  const int T = q.shape(0);
  const std::vector<mx::array> parts =
      mx::split(mx::reshape(q, {T, rule.n_heads, 2 * rule.head_dim}), 2, 2);
  const mx::Shape flat{T, rule.n_heads * rule.head_dim};
  return {mx::reshape(parts[0], flat), mx::reshape(parts[1], flat)};
}

/** What scores are made of. */
struct Heads {
  mx::array q; // [T, n_heads, head_dim]
  mx::array k; // [T, n_kv_heads, head_dim]; T = 0 without K/V of its own
  mx::array v; // the same, [T, n_kv_heads, head_dim]
  std::optional<mx::array> gate; // [T, n_heads * head_dim]
};

Heads make_heads(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments) {
  const auto [plain, gate] = split_gate(q, rule);
  const std::vector<std::int32_t> positions = positions_of(segments);
  const auto place = [&](const mx::array& heads) {
    return rule.rope && heads.shape(0) > 0 ? rope(heads, positions, *rule.rope)
                                           : heads;
  };
  mx::array queries = place(norm_heads(plain, rule.n_heads, rule, rule.q_norm));
  if (rule.query_growth && q.shape(0) > 0) {
    queries = grow(queries, *rule.query_growth, positions);
  }
  return {
      queries,
      place(norm_heads(k, rule.n_kv_heads, rule, rule.k_norm)),
      norm_heads(v, rule.n_kv_heads, rule, rule.v_norm),
      gate};
}

/** What segments' rows attended to, one after another and gated. */
mx::array join(
    std::vector<mx::array> attended,
    const Heads& heads,
    const AttentionRule& rule) {
  const mx::Shape flat{heads.q.shape(0), rule.n_heads * rule.head_dim};
  const mx::array y = mx::reshape(
      attended.empty() ? heads.q : mx::concatenate(std::move(attended), 0),
      flat);
  return heads.gate ? sigmoid_gate(y, *heads.gate) : y;
}

} // namespace

mx::array attend(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    const KvFormat& format,
    PendingBlocks& pending) {
  const KvArrays& layout = layout_of(format);
  check_attention_shapes(kFunction, q, k, v, rule, format);
  check_kv_segments(kFunction, segments, q.shape(0), format.window);
  const Heads heads = make_heads(q, k, v, rule, segments);
  if (k.shape(0) > 0) {
    append(heads.k, heads.v, segments, layout, pending);
  }
  std::vector<mx::array> attended;
  for (const Segment& s : segments) {
    if (s.rows > 0) {
      attended.push_back(attend_segment(
          rows_of(heads.q, s.first_row, s.first_row + s.rows),
          s,
          rule.scores,
          format.window,
          layout));
    }
  }
  return join(std::move(attended), heads, rule);
}

mx::array attend_whole(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    int window) {
  const Heads heads = make_heads(q, k, v, rule, segments);
  std::vector<mx::array> attended;
  for (const Segment& s : segments) {
    if (s.rows > 0) {
      const int end = s.first_row + s.rows;
      attended.push_back(portable::attend(
          rows_of(heads.q, s.first_row, end),
          rows_of(heads.k, s.first_row, end),
          rows_of(heads.v, s.first_row, end),
          rule.scores,
          window));
    }
  }
  return join(std::move(attended), heads, rule);
}

} // namespace optiq::kernels::portable
