// What the kernels of attention share: how partial sums of spans are joined,
// and what a query sees.
#pragma once

#include "optiq/kernels/cuda/device/kv_side.cuh"

namespace optiq::kernels::cuda {

/** The partial (m, l, sum of values) of `more` added to that of `all`: factors
 * of both. Spans that a query does not see change nothing. */
struct Joined {
  float maximum;
  float weight;
  float factor; // of what was there
  float more; // of what is added
};

__device__ __forceinline__ Joined
join(float maximum, float weight, float other_maximum, float other_weight) {
  if (other_maximum == -INFINITY) {
    return {maximum, weight, 1.f, 0.f};
  }
  if (maximum == -INFINITY) {
    return {other_maximum, other_weight, 0.f, 1.f};
  }
  const float m = fmaxf(maximum, other_maximum);
  const float a = expf(maximum - m);
  const float b = expf(other_maximum - m);
  return {m, __fmaf_rn(weight, a, __fmul_rn(other_weight, b)), a, b};
}

__device__ __forceinline__ float
join_values(const Joined& joined, float value, float other) {
  return __fmaf_rn(value, joined.factor, __fmul_rn(other, joined.more));
}

/** Positions that a query of an item sees: [first, last]. */
struct Seen {
  int first;
  int last;
};

__device__ __forceinline__ Seen
seen_by(const Attend& args, const AttendItem& item, int query, int group) {
  const int last = item.start + (item.first_query + query) / group;
  const int first =
      args.window == 0 || last < args.window ? 0 : last - args.window + 1;
  return {first, last};
}

} // namespace optiq::kernels::cuda
