#include <algorithm>
#include <cstddef>

#include "optiq/kernels/cpu/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/attention_partials.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/highway.h"

#include "optiq/kernels/cpu/rotation-inl.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

// The partial results of spans: where they lie, how they are added, and what
// becomes of their total.
HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {
namespace {

/** Adds the denominators of a vector of queries, of which there is room for
 * whole ones; what their sums are multiplied by. */
HWY_INLINE void AddDenominators(
    F32 d,
    std::size_t begin,
    const Partial& part,
    const Partial& total,
    float (&factors)[2][16]) {
  const VF32 before = hn::LoadU(d, total.maximum + begin);
  const VF32 fresh = hn::LoadU(d, part.maximum + begin);
  const VF32 maximum = hn::IfThenElse(hn::Lt(before, fresh), fresh, before);
  // The distance is zero also when both are infinite.
  const auto factor = [&](VF32 m) HWY_ATTR {
    return ExpNonPositive(
        d, hn::IfThenZeroElse(hn::Eq(m, maximum), hn::Sub(m, maximum)));
  };
  const VF32 old = factor(before);
  const VF32 added = factor(fresh);
  hn::Store(old, d, factors[0]);
  hn::Store(added, d, factors[1]);
  const VF32 sum = hn::LoadU(d, total.denominator + begin);
  const VF32 more = hn::LoadU(d, part.denominator + begin);
  const VF32 both = hn::Add(hn::Mul(sum, old), hn::Mul(more, added));
  const auto blind = hn::Eq(more, hn::Zero(d));
  hn::StoreU(hn::IfThenElse(blind, before, maximum), d, total.maximum + begin);
  hn::StoreU(hn::IfThenElse(blind, sum, both), d, total.denominator + begin);
}

void AddPartial(
    const AttentionShape& shape,
    std::size_t n,
    const Partial& part,
    const Partial& total) {
  const F32 d;
  const std::size_t stride = round_up(shape.layout.head_dim, 16);
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t begin = 0; begin < n; begin += lanes) {
    const std::size_t count = std::min(lanes, n - begin);
    HWY_ALIGN float factors[2][16]; // of the total and the part
    HWY_ALIGN float before[16];
    hn::Store(hn::LoadU(d, total.denominator + begin), d, before);
    AddDenominators(d, begin, part, total, factors);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t query = begin + i;
      if (part.denominator[query] == 0.0f) {
        continue; // it saw nothing: adding zeros could still flip a sign
      }
      const VF32 old = hn::Set(d, factors[0][i]);
      const VF32 fresh = hn::Set(d, factors[1][i]);
      float* to = total.sum + query * stride;
      const float* from = part.sum + query * stride;
      if (before[i] == 0.0f) { // nor did it before
        std::copy_n(from, stride, to);
        continue;
      }
      for (std::size_t c = 0; c < stride; c += lanes) {
        const VF32 kept = hn::Mul(old, hn::LoadU(d, to + c));
        hn::StoreU(hn::MulAdd(fresh, hn::LoadU(d, from + c), kept), d, to + c);
      }
    }
  }
}

void FinishTile(
    const AttentionShape& shape,
    const AttentionTile& tile,
    const Partial& total,
    float* out) {
  const std::size_t dim = shape.layout.head_dim;
  const std::size_t stride = round_up(dim, 16);
  const std::size_t group = shape.group();
  const KvSide& side = shape.layout.value;
  HWY_ALIGN float divided[kMaxHeadDim];
  for (std::size_t i = 0; i < tile.rows * group; ++i) {
    const std::size_t head = (tile.first_row + i / group) * shape.n_heads +
        tile.kv_head * group + i % group;
    const bool turn = side.code == KvCode::Turbo;
    float* to = turn ? divided : out + head * dim;
    for (std::size_t j = 0; j < dim; ++j) {
      to[j] = total.sum[i * stride + j] / total.denominator[i];
    }
    if (turn) {
      Rotate(side.rotation, dim, true, divided, out + head * dim);
    }
  }
}

} // namespace
} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(AddPartial);
HWY_EXPORT(FinishTile);

std::size_t partial_floats(const AttentionShape& shape, std::size_t n) {
  return n * round_up(shape.layout.head_dim, 16) + 2 * round_up(n, 16);
}

Partial partial_at(const AttentionShape& shape, std::size_t n, float* memory) {
  Partial partial;
  partial.sum = memory;
  partial.denominator = memory + n * round_up(shape.layout.head_dim, 16);
  partial.maximum = partial.denominator + round_up(n, 16);
  return partial;
}

void add_partial(
    const AttentionShape& shape,
    std::size_t n,
    const Partial& part,
    const Partial& total) {
  HWY_DYNAMIC_DISPATCH(AddPartial)(shape, n, part, total);
}

void finish_tile(
    const AttentionShape& shape,
    const AttentionTile& tile,
    const Partial& total,
    float* out) {
  HWY_DYNAMIC_DISPATCH(FinishTile)(shape, tile, total, out);
}

} // namespace optiq::kernels::cpu
#endif
