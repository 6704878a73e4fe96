#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

#include <hwy/aligned_allocator.h>

#include "optiq/kernels/checks_impl.h"
#include "optiq/kernels/cpu/attention_gradients.h"
#include "optiq/kernels/cpu/attention_heads.h"
#include "optiq/kernels/cpu/gradients.h"
#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/cpu/parallel_by_cost.h"
#include "optiq/kernels/profile.h"
#include "optiq/kernels/segment_checks.h"

namespace optiq::kernels::cpu::gradients {
namespace {

constexpr const char* kFunction = "attend";
constexpr std::size_t kMinCost = 1 << 16; // below, waking a thread does not pay

/** Of heads as they meet. */
struct HeadsGradient {
  mx::array y; // [T, n_heads, head_dim], before the gate; unset without one
  mx::array q; // [T, n_heads, head_dim]
  mx::array k; // [T, n_kv_heads, head_dim]
  mx::array v; // [T, n_kv_heads, head_dim]
};

/** One query head of one sequence. */
struct HeadTask {
  const Segment* segment;
  int head;
  std::size_t share; // first float of its share of dk and dv
};

std::vector<HeadTask> tasks_of(
    const AttentionRule& rule,
    std::span<const Segment> segments) {
  std::vector<HeadTask> tasks;
  std::size_t share = 0;
  for (const Segment& segment : segments) {
    for (int head = 0; head < rule.n_heads; ++head) {
      tasks.push_back({&segment, head, share});
      share += std::size_t{1} * segment.rows * rule.head_dim;
    }
  }
  return tasks;
}

/** d of a kv head: the sum of its query heads' shares, in order. */
void add_shares(
    const std::vector<HeadTask>& tasks,
    const std::vector<float>& shares,
    const AttentionRule& rule,
    float* to) {
  const std::size_t dim = rule.head_dim;
  const std::size_t kv_heads = rule.n_kv_heads;
  const std::size_t group = rule.n_heads / kv_heads;
  for (std::size_t i = 0; i < tasks.size(); i += group) {
    const Segment& segment = *tasks[i].segment;
    const std::size_t kv_head = tasks[i].head / group;
    for (int t = 0; t < segment.rows; ++t) {
      float* row = to + ((segment.first_row + t) * kv_heads + kv_head) * dim;
      for (std::size_t c = 0; c < dim; ++c) {
        row[c] = 0;
        for (std::size_t h = 0; h < group; ++h) {
          row[c] += shares[tasks[i + h].share + t * dim + c];
        }
      }
    }
  }
}

/** dy [T, n_heads * head_dim], past the gate. */
HeadsGradient attend_backwards(
    const mx::array& dy,
    const Heads& heads,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    int window) {
  HeadsGradient to{
      io::make_array(heads.q.shape(), mx::float32),
      io::make_array(heads.q.shape(), mx::float32),
      io::make_array(heads.k.shape(), mx::float32),
      io::make_array(heads.v.shape(), mx::float32)};
  std::vector<float> k_shares(heads.q.size());
  std::vector<float> v_shares(heads.q.size());
  const std::size_t dim = rule.head_dim;
  const std::size_t q_stride = rule.n_heads * dim;
  const std::size_t kv_stride = rule.n_kv_heads * dim;
  float* to_y = heads.gate ? io::mutable_floats(to.y).data() : nullptr;
  float* to_q = io::mutable_floats(to.q).data();
  const auto run = [&](const HeadTask& task, float* scratch) {
    const std::size_t row = task.segment->first_row;
    const std::size_t kv_head = task.head / (rule.n_heads / rule.n_kv_heads);
    const std::size_t at = row * q_stride + task.head * dim;
    const std::size_t kv_at = row * kv_stride + kv_head * dim;
    head_gradient(
        {.rows = static_cast<std::size_t>(task.segment->rows),
         .dim = dim,
         .window = static_cast<std::size_t>(window),
         .scale = rule.scores.scale,
         .softcap = rule.scores.softcap,
         .q = io::floats(heads.q).data() + at,
         .dy = io::floats(dy).data() + at,
         .q_stride = q_stride,
         .k = io::floats(heads.k).data() + kv_at,
         .v = io::floats(heads.v).data() + kv_at,
         .kv_stride = kv_stride,
         .y = to_y == nullptr ? nullptr : to_y + at,
         .dq = to_q + at,
         .dk = k_shares.data() + task.share,
         .dv = v_shares.data() + task.share},
        scratch);
  };
  const std::vector<HeadTask> tasks = tasks_of(rule, segments);
  std::vector<std::size_t> costs;
  std::size_t scratch_floats = 0;
  for (const HeadTask& task : tasks) {
    const std::size_t rows = task.segment->rows;
    costs.push_back(rows * rows * dim);
    scratch_floats = std::max(scratch_floats, head_gradient_scratch(rows, dim));
  }
  parallel_by_cost(
      costs, kMinCost, [&](std::size_t, std::size_t begin, std::size_t end) {
        const auto scratch = hwy::AllocateAligned<float>(scratch_floats);
        for (std::size_t i = begin; i < end; ++i) {
          run(tasks[i], scratch.get());
        }
      });
  add_shares(tasks, k_shares, rule, io::mutable_floats(to.k).data());
  add_shares(tasks, v_shares, rule, io::mutable_floats(to.v).data());
  return to;
}

/** Through RoPE and norm: d of placed heads -> d of what was projected, x. */
mx::array through_norm(
    const mx::array& dheads,
    const mx::array& x,
    const AttentionRule& rule,
    const std::optional<mx::array>& weight) {
  if (!weight) {
    return io::reshaped(dheads, x.shape());
  }
  const bool is_of_heads = weight->shape(0) == rule.head_dim;
  const mx::Shape shape = is_of_heads ? dheads.shape() : x.shape();
  return io::reshaped(
      normalize(
          io::reshaped(dheads, shape),
          io::reshaped(x, shape),
          {*weight, rule.norm_eps}),
      x.shape());
}

} // namespace

AttentionGradients attend(
    const mx::array& dy,
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    int window) {
  const OpTimer timer("attend_gradient");
  const int rows = q.ndim() == 0 ? 0 : q.shape(0);
  const int width = rule.n_heads * rule.head_dim;
  check_whole_sequences(kFunction, segments, rows);
  const mx::array keys = require_floats(
      kFunction, "k", k, {rows, rule.n_kv_heads * rule.head_dim});
  const mx::array values = require_floats(kFunction, "v", v, k.shape());
  const mx::array from = require_floats(kFunction, "dy", dy, {rows, width});
  const std::vector<std::int32_t> positions = positions_of(segments);
  const Heads heads = make_heads(q, keys, values, rule, positions);
  const mx::array queries = rule.has_output_gate
      ? split_query_and_gate(io::materialize(q), rule.n_heads, rule.head_dim)
            .first
      : io::materialize(q);
  // What passes the gate does not depend on what it is multiplied with.
  const HeadsGradient d = attend_backwards(
      heads.gate ? sigmoid_gate(from, from, *heads.gate).first : from,
      heads,
      rule,
      segments,
      window);
  const auto unplace = [&](const mx::array& x) {
    return rule.rope && rows > 0 ? rope_gradient(x, positions, *rule.rope) : x;
  };
  const mx::array dplaced = rule.query_growth && rows > 0
      ? grow_queries(d.q, *rule.query_growth, positions)
      : d.q;
  mx::array dq = through_norm(unplace(dplaced), queries, rule, rule.q_norm);
  if (heads.gate) {
    const mx::array y = io::reshaped(d.y, {rows, width});
    const mx::array dgate = sigmoid_gate(from, y, *heads.gate).second;
    dq = join_query_and_gate(dq, dgate, rule.n_heads, rule.head_dim);
  }
  return {
      dq,
      through_norm(unplace(d.k), keys, rule, rule.k_norm),
      through_norm(d.v, values, rule, rule.v_norm)};
}

} // namespace optiq::kernels::cpu::gradients
