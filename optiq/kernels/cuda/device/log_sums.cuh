// The largest of a row of logits and its log-sum-exp, by a block of threads.
#pragma once

#include <cmath>

#include "optiq/kernels/cuda/device/common.cuh"

namespace optiq::kernels::cuda {
namespace {

/** Largest value that is not NaN, and its lowest index; -inf and 0 without. */
struct Largest {
  float value;
  int index;
};

__device__ __forceinline__ Largest larger(Largest a, Largest b) {
  const bool takes_b =
      b.value > a.value || (b.value == a.value && b.index < a.index);
  return takes_b ? b : a;
}

__device__ Largest largest_of(const float* x, int n) {
  __shared__ Largest parts[32];
  Largest best{-INFINITY, 0x7fffffff};
  constexpr int kBatch = 16; // loads on their way together
  for (int first = threadIdx.x; first < n; first += kBatch * blockDim.x) {
    float values[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = first + k * static_cast<int>(blockDim.x);
      values[k] = i < n ? x[i] : -INFINITY;
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      if (values[k] > best.value) { // false for NaN
        best = {values[k], first + k * static_cast<int>(blockDim.x)};
      }
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    best = larger(
        best,
        {__shfl_xor_sync(kAllLanes, best.value, step),
         __shfl_xor_sync(kAllLanes, best.index, step)});
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
    parts[threadIdx.x / 32] = best;
  }
  __syncthreads();
  for (int i = 0; i < static_cast<int>(blockDim.x) / 32; ++i) {
    best = larger(best, parts[i]);
  }
  return best;
}

__device__ double log_sum_exp_of(const float* x, int n) {
  const float maximum = largest_of(x, n).value;
  if (!isfinite(maximum)) {
    // A row without finite values is its maximum, unless it holds NaN.
    int has_nan = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
      has_nan |= isnan(x[i]);
    }
    return __syncthreads_or(has_nan) ? nan("") : maximum;
  }
  double sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    sum += exp(static_cast<double>(x[i]) - maximum);
  }
  return maximum + log(block_sum(sum));
}

} // namespace
} // namespace optiq::kernels::cuda
