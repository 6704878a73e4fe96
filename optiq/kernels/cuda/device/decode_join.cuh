// Sums of pieces and spans of attention_decode.cu, and how they are joined: in
// order, by the same arithmetic whoever does it.
#pragma once

#include "optiq/kernels/cuda/device/attention.cuh"

namespace optiq::kernels::cuda {
namespace {

/** kCount neighbouring floats of a lane, 2, 4 or 8. */
template <int kCount>
__device__ __forceinline__ void read_floats(
    const float* from,
    float (&to)[kCount]) {
  if constexpr (kCount == 2) {
    const float2 v = __ldcg(reinterpret_cast<const float2*>(from));
    to[0] = v.x;
    to[1] = v.y;
  } else {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 v = __ldcg(reinterpret_cast<const float4*>(from + i));
      to[i] = v.x;
      to[i + 1] = v.y;
      to[i + 2] = v.z;
      to[i + 3] = v.w;
    }
  }
}

template <int kCount>
__device__ __forceinline__ void write_floats(
    const float (&from)[kCount],
    float* to) {
  if constexpr (kCount == 2) {
    *reinterpret_cast<float2*>(to) = make_float2(from[0], from[1]);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      *reinterpret_cast<float4*>(to + i) =
          make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
    }
  }
}

/** A query's sums of some tokens: in every lane of a warp its kOwn channels. */
template <int kOwn>
struct Sums {
  float maximum = -INFINITY;
  float weight = 0.f;
  float values[kOwn] = {};

  __device__ __forceinline__ void add(const Sums& more) {
    const Joined joined = join(maximum, weight, more.maximum, more.weight);
    maximum = joined.maximum;
    weight = joined.weight;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      values[i] = join_values(joined, values[i], more.values[i]);
    }
  }
};

/** Where partials of a query are, a slot per span. */
struct Slots {
  float* values; // [slots, head_dim]
  float* sums; // [slots, 2]
};

template <int kOwn>
__device__ __forceinline__ void
write_slot(const Slots& slots, int slot, const Sums<kOwn>& sums) {
  const int lane = threadIdx.x % 32;
  write_floats(sums.values, slots.values + slot * 32 * kOwn + lane * kOwn);
  if (lane == 0) {
    *reinterpret_cast<float2*>(slots.sums + 2 * slot) =
        make_float2(sums.maximum, sums.weight);
  }
}

/** The sums of `n` slots, as add() joins them one after the other: a lane knows
 * the maximum of all before its own, so that what a slot is multiplied by is
 * known at once. */
template <int kOwn>
__device__ __forceinline__ Sums<kOwn> join_slots(const Slots& slots, int n) {
  constexpr int kAtOnce = kOwn > 4 ? 8 : 16; // on their way
  const int lane = threadIdx.x % 32;
  Sums<kOwn> all;
#pragma unroll 1
  for (int begin = 0; begin < n; begin += 32) {
    const float2 own = begin + lane < n
        ? __ldcg(reinterpret_cast<const float2*>(slots.sums) + begin + lane)
        : make_float2(-INFINITY, 0.f);
    float until = own.x; // the largest up to this slot
#pragma unroll
    for (int i = 1; i < 32; i *= 2) {
      const float other = __shfl_up_sync(kAllLanes, until, i);
      until = fmaxf(until, lane >= i ? other : -INFINITY);
    }
    until = fmaxf(until, all.maximum);
    const float previous = __shfl_up_sync(kAllLanes, until, 1);
    const float before = lane == 0 ? all.maximum : previous;
    const Joined mine = join(before, 0.f, own.x, own.y);
#pragma unroll 1
    for (int i = 0; i < min(32, n - begin); i += kAtOnce) {
      float values[kAtOnce][kOwn];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const int at = min(begin + i + j, n - 1);
        read_floats(slots.values + at * 32 * kOwn + lane * kOwn, values[j]);
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        // Slots that are not there have sums of 0 and change nothing.
        Joined joined;
        joined.factor = __shfl_sync(kAllLanes, mine.factor, i + j);
        joined.more = __shfl_sync(kAllLanes, mine.more, i + j);
        const float weight = __shfl_sync(kAllLanes, own.y, i + j);
        all.weight = join_values(joined, all.weight, weight);
#pragma unroll
        for (int k = 0; k < kOwn; ++k) {
          all.values[k] = join_values(joined, all.values[k], values[j][k]);
        }
      }
    }
    all.maximum = __shfl_sync(kAllLanes, until, 31);
  }
  return all;
}

/** Whether this block of threads is the last of `n` to have come here, with
 * what the others wrote before there for it. */
__device__ __forceinline__ bool is_last_of(unsigned* arrived, unsigned n) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = add_for_all(arrived, 1) + 1 == n;
    if (is_last) {
      *arrived = 0; // for the next launch
    }
  }
  __syncthreads();
  return is_last;
}

} // namespace
} // namespace optiq::kernels::cuda
