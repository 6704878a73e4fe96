// What the kernels of attention share: how partial sums of spans are joined,
// and what a query sees.
#pragma once

#include "optiq/kernels/cuda/device/kv_side.cuh"

namespace optiq::kernels::cuda {

/** The partial (m, l, sum of values) of `more` added to that of `all`: factors
 * of both. Spans that a query does not see change nothing. Without a branch, so
 * that what is joined next is on its way. */
struct Joined {
  float maximum;
  float weight;
  float factor; // of what was there
  float more; // of what is added
};

__device__ __forceinline__ Joined
join(float maximum, float weight, float other_maximum, float other_weight) {
  const float m = fmaxf(maximum, other_maximum);
  const bool has_other = other_maximum != -INFINITY;
  const bool has_both = has_other && maximum != -INFINITY;
  const float a = has_both ? expf(maximum - m) : has_other ? 0.f : 1.f;
  const float b = has_both ? expf(other_maximum - m) : has_other ? 1.f : 0.f;
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

/** Which of all rows' heads a query of an item is. */
__device__ __forceinline__ long long
head_of(const Attend& args, const AttendItem& item, int group, int query) {
  const int at = item.first_query + query;
  return static_cast<long long>(item.first_row + at / group) * args.n_heads +
      static_cast<int>(blockIdx.y) * group + at % group;
}

/** The result of a query's channel: its partials joined in order. */
__device__ __forceinline__ float
joined_value(const float* partials, int slots, int head_dim, int channel) {
  constexpr int kAtOnce = 16; // on their way
  float maximum = -INFINITY;
  float sum = 0.f;
  float value = 0.f;
  for (int first = 0; first < slots; first += kAtOnce) {
    float maxima[kAtOnce];
    float sums[kAtOnce];
    float values[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float* other = partials + (first + i) * (head_dim + 2);
      const bool is_there = first + i < slots;
      maxima[i] = is_there ? __ldcg(other) : -INFINITY;
      sums[i] = is_there ? __ldcg(other + 1) : 0.f;
      values[i] = is_there ? __ldcg(other + 2 + channel) : 0.f;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const Joined joined = join(maximum, sum, maxima[i], sums[i]);
      maximum = joined.maximum;
      sum = joined.weight;
      value = join_values(joined, value, values[i]);
    }
  }
  return value / sum;
}

/** Whether this block is the last of its tile to have written partials, which
 * then are all there. */
__device__ __forceinline__ bool is_last_of_tile(
    const Attend& args,
    const AttendItem& item) {
  __shared__ bool is_last;
  if (item.n_slots == 1) {
    __syncthreads();
    return true;
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned* arrived =
        args.arrived + item.tile * args.shape.n_kv_heads + blockIdx.y;
    is_last = atomicAdd(arrived, 1u) + 1 == item.n_slots;
    if (is_last) {
      *arrived = 0; // for the next launch
    }
  }
  __syncthreads();
  __threadfence();
  return is_last;
}

/** A result, gated where there are gates. */
__device__ __forceinline__ float
gated(const Attend& args, long long head, int channel, float y) {
  return args.gate == nullptr ? y
                              : y /
          (1.f +
           expf(-args.gate[head * 2 * args.shape.key.head_dim + channel]));
}

/** What a block does behind its partials: the last one of a tile makes its
 * results. `attended` is shared memory for kTileQueries heads that nobody reads
 * any more. */
__device__ __forceinline__ void finish_tile(
    const Attend& args,
    const AttendItem& item,
    int group,
    float* attended) {
  if (!is_last_of_tile(args, item)) {
    return;
  }
  const int head_dim = args.shape.key.head_dim;
  const int n = item.n_queries * head_dim;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const long long head = head_of(args, item, group, i / head_dim);
    attended[i] = joined_value(
        args.partials + head * args.slots * (head_dim + 2),
        item.n_slots,
        head_dim,
        i % head_dim);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const long long head = head_of(args, item, group, i / head_dim);
    const int channel = i % head_dim;
    float y = attended[i];
    if (args.rotation != nullptr) {
      const float* row = attended + i - channel;
      y = 0.f;
      for (int j = 0; j < head_dim; ++j) {
        y = fmaf(row[j], args.rotation[channel * head_dim + j], y);
      }
    }
    args.y[head * head_dim + channel] = gated(args, head, channel, y);
  }
}

} // namespace optiq::kernels::cuda
