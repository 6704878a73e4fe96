#include "optiq/kernels/cpu/attention_gradients.h"

#include <algorithm>

#include "optiq/kernels/cpu/float_matmul.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/attention_gradients.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/highway.h"

#include "optiq/kernels/cpu/softcap-inl.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {
namespace {

/** Scores and dp of one row of n keys, in place: p and scale ds. */
void ScoresRow(
    float scale,
    float softcap,
    std::size_t n,
    float* scores,
    float* dp) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  VF32 largest = hn::Set(d, -hwy::HighestValue<float>());
  for (std::size_t i = 0; i < n; i += lanes) {
    const std::size_t count = std::min(lanes, n - i);
    VF32 s = hn::Mul(hn::LoadN(d, scores + i, count), hn::Set(d, scale));
    if (softcap > 0.0f) {
      s = Capped(d, s, softcap);
    }
    hn::StoreN(s, d, scores + i, count);
    largest =
        hn::IfThenElse(hn::FirstN(d, count), hn::Max(largest, s), largest);
  }
  const VF32 most = hn::Set(d, hn::ReduceMax(d, largest));
  VF32 sum = hn::Zero(d);
  VF32 weighted = hn::Zero(d);
  for (std::size_t i = 0; i < n; i += lanes) {
    const std::size_t count = std::min(lanes, n - i);
    const VF32 e = hn::IfThenElseZero(
        hn::FirstN(d, count),
        ExpNonPositive(d, hn::Sub(hn::LoadN(d, scores + i, count), most)));
    sum = hn::Add(sum, e);
    weighted = hn::MulAdd(e, hn::LoadN(d, dp + i, count), weighted);
  }
  const float total = hn::ReduceSum(d, sum);
  const VF32 inverse = hn::Set(d, 1.0f / total);
  const VF32 mean = hn::Set(d, hn::ReduceSum(d, weighted) / total);
  const VF32 cap = hn::Set(d, softcap > 0.0f ? 1.0f / softcap : 0.0f);
  for (std::size_t i = 0; i < n; i += lanes) {
    const std::size_t count = std::min(lanes, n - i);
    const VF32 s = hn::LoadN(d, scores + i, count);
    const VF32 p = hn::Mul(ExpNonPositive(d, hn::Sub(s, most)), inverse);
    const VF32 t = hn::Mul(s, cap);
    const VF32 slope =
        hn::Mul(hn::NegMulAdd(t, t, hn::Set(d, 1.0f)), hn::Set(d, scale));
    const VF32 difference = hn::Sub(hn::LoadN(d, dp + i, count), mean);
    hn::StoreN(hn::Mul(hn::Mul(p, difference), slope), d, dp + i, count);
    hn::StoreN(p, d, scores + i, count);
  }
}

} // namespace
} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {
namespace {

HWY_EXPORT(ScoresRow);

/** [rows][dim] at a stride -> [dim][rows]. */
void transpose(
    const float* from,
    std::size_t stride,
    std::size_t rows,
    std::size_t dim,
    float* to) {
  constexpr std::size_t kBlock = 16; // lines of both stay in L1
  for (std::size_t r0 = 0; r0 < rows; r0 += kBlock) {
    const std::size_t end = std::min(rows, r0 + kBlock);
    for (std::size_t i = 0; i < dim; ++i) {
      for (std::size_t r = r0; r < end; ++r) {
        to[i * rows + r] = from[r * stride + i];
      }
    }
  }
}

/** Rows [first, last) of the queries and the keys [first_key, last) that one of
 * them sees. */
struct QueryBlock {
  std::size_t first;
  std::size_t last;
  std::size_t first_key;

  std::size_t rows() const {
    return last - first;
  }
  std::size_t keys() const {
    return last - first_key;
  }
};

struct Scratch {
  float* keys; // [dim][rows]
  float* values; // [dim][rows]
  float* p; // [kQueryBlock][keys]
  float* ds; // the same
};

/** First row that row t sees. */
std::size_t first_seen(const HeadGradient& head, std::size_t t) {
  return head.window == 0 || t < head.window ? 0 : t - head.window + 1;
}

/** p and scale * ds of a block; zero where a row does not see. */
void make_scores(
    const HeadGradient& head,
    const QueryBlock& block,
    const Scratch& scratch) {
  const std::size_t keys = block.keys();
  const auto scores_of = [&](const float* rows, const float* by_dim, float* c) {
    multiply_floats(
        {.a = {rows + block.first * head.q_stride, head.q_stride},
         .b = {.data = by_dim + block.first_key, .stride = head.rows},
         .c = c,
         .c_stride = keys,
         .rows = block.rows(),
         .cols = keys,
         .inner = head.dim});
  };
  scores_of(head.q, scratch.keys, scratch.p);
  scores_of(head.dy, scratch.values, scratch.ds);
  for (std::size_t t = block.first; t < block.last; ++t) {
    const std::size_t at = (t - block.first) * keys;
    const std::size_t begin = first_seen(head, t) - block.first_key;
    const std::size_t end = t + 1 - block.first_key;
    HWY_DYNAMIC_DISPATCH(ScoresRow)
    (head.scale,
     head.softcap,
     end - begin,
     scratch.p + at + begin,
     scratch.ds + at + begin);
    for (float* row : {scratch.p + at, scratch.ds + at}) {
      std::fill(row, row + begin, 0.0f);
      std::fill(row + end, row + keys, 0.0f);
    }
  }
}

void apply_block(
    const HeadGradient& head,
    const QueryBlock& block,
    const Scratch& scratch) {
  const std::size_t keys = block.keys();
  const auto onto_rows = [&](const float* w, const float* kv, float* c) {
    multiply_floats(
        {.a = {w, keys},
         .b =
             {.data = kv + block.first_key * head.kv_stride,
              .stride = head.kv_stride},
         .c = c + block.first * head.q_stride,
         .c_stride = head.q_stride,
         .rows = block.rows(),
         .cols = head.dim,
         .inner = keys});
  };
  const auto onto_keys = [&](const float* w, const float* rows, float* c) {
    multiply_floats(
        {.a = {w, 1, keys},
         .b =
             {.data = rows + block.first * head.q_stride,
              .stride = head.q_stride},
         .c = c + block.first_key * head.dim,
         .c_stride = head.dim,
         .rows = keys,
         .cols = head.dim,
         .inner = block.rows(),
         .accumulate = true});
  };
  onto_rows(scratch.ds, head.k, head.dq);
  if (head.y != nullptr) {
    onto_rows(scratch.p, head.v, head.y);
  }
  onto_keys(scratch.ds, head.q, head.dk);
  onto_keys(scratch.p, head.dy, head.dv);
}

} // namespace

std::size_t head_gradient_scratch(std::size_t rows, std::size_t dim) {
  return 2 * rows * dim + 2 * std::min(rows, kQueryBlock) * rows;
}

void head_gradient(const HeadGradient& head, float* memory) {
  Scratch scratch{};
  scratch.keys = memory;
  scratch.values = scratch.keys + head.rows * head.dim;
  scratch.p = scratch.values + head.rows * head.dim;
  scratch.ds = scratch.p + std::min(head.rows, kQueryBlock) * head.rows;
  transpose(head.k, head.kv_stride, head.rows, head.dim, scratch.keys);
  transpose(head.v, head.kv_stride, head.rows, head.dim, scratch.values);
  std::fill_n(head.dk, head.rows * head.dim, 0.0f);
  std::fill_n(head.dv, head.rows * head.dim, 0.0f);
  for (std::size_t t = 0; t < head.rows; t += kQueryBlock) {
    const QueryBlock block{
        t, std::min(head.rows, t + kQueryBlock), first_seen(head, t)};
    make_scores(head, block, scratch);
    apply_block(head, block, scratch);
  }
}

} // namespace optiq::kernels::cpu
#endif
