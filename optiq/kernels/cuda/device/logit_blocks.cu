// Sums of blocks of logits with the bits of kernels/cpu/logit_blocks.cpp: the
// same operations in the same order, none of them fused.
#include <cmath>

#include "optiq/kernels/cuda/device/common.cuh"
#include "optiq/kernels/cuda/logit_arguments.h"

namespace optiq::kernels::cuda {
namespace {

constexpr int kBlock = 256; // logits
constexpr int kSums = 16; // running sums of a block: one a lane
constexpr int kTerms = kBlock / kSums;

__device__ __forceinline__ float mul_then_add(float a, float b, float c) {
  return __fadd_rn(__fmul_rn(a, b), c);
}

/** 2^t for t <= 0, 0 for NaN and below -126. */
__device__ __forceinline__ float exp2_of(float t) {
  const float magic = 12582912.0f + 127.0f;
  const float shifted = __fadd_rn(t, magic);
  const float r = __fsub_rn(t, __fsub_rn(shifted, magic));
  float p = 0x1.5bba14p-10f;
  p = mul_then_add(p, r, 0x1.3cea88p-7f);
  p = mul_then_add(p, r, 0x1.c6b752p-5f);
  p = mul_then_add(p, r, 0x1.ebf9bcp-3f);
  p = mul_then_add(p, r, 0x1.62e42ap-1f);
  const float e = mul_then_add(p, r, 1.0f);
  const float power = __uint_as_float(__float_as_uint(shifted) << 23);
  return t >= -126.0f ? __fmul_rn(e, power) : 0.f;
}

/** The largest of a warp's values; NaN is passed over. */
__device__ __forceinline__ float largest_of_warp(const float (&x)[kTerms]) {
  float largest = -INFINITY;
#pragma unroll
  for (const float v : x) {
    largest = v > largest ? v : largest;
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, step));
  }
  return largest;
}

} // namespace

/** Grid: blocks of a row, 8 to a block of threads, rows. A warp has a block:
 * lane l adds up the masses, lane l + 16 the depths, of logits l + 16 i. */
extern "C" __global__ void sum_blocks(const __grid_constant__ SumBlocks args) {
  begin_kernel();
  const int block = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (block >= args.blocks) {
    return;
  }
  const int lane = threadIdx.x % 32;
  const long long row = blockIdx.y;
  const int n = min(kBlock, args.n - block * kBlock);
  const float* from = args.x + row * args.n + block * kBlock;
  float x[kTerms];
#pragma unroll
  for (int i = 0; i < kTerms; ++i) {
    const int at = lane % kSums + i * kSums;
    x[i] = at < n ? from[at] : -INFINITY;
  }
  const float largest = largest_of_warp(x);
  const float factor = args.factors[row];
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < kTerms; ++i) {
    const float t = __fmul_rn(__fsub_rn(x[i], largest), factor);
    const float e = exp2_of(t);
    const float depth = e > 0.f ? __fmul_rn(e, -t) : 0.f; // t may be -inf
    sum = __fadd_rn(sum, lane < kSums ? e : depth);
  }
  double total = sum;
#pragma unroll
  for (int step = kSums / 2; step > 0; step /= 2) {
    total += __shfl_xor_sync(kAllLanes, total, step);
  }
  if (!isfinite(largest)) {
    total = 0;
  }
  const long long at = row * args.blocks + block;
  if (lane == 0) {
    args.maxima[at] = largest;
    args.masses[at] = total;
  } else if (lane == kSums) {
    args.depths[at] = total;
  }
}

/** Grid: blocks that are taken, a thread for each of their logits. */
extern "C" __global__ void take_blocks(
    const __grid_constant__ TakeBlocks args) {
  begin_kernel();
  const long long row = args.ids[2 * blockIdx.x];
  const int i = args.ids[2 * blockIdx.x + 1] * kBlock + threadIdx.x;
  args.taken[blockIdx.x * static_cast<long long>(kBlock) + threadIdx.x] =
      i < args.n ? args.x[row * args.n + i] : -INFINITY;
}

} // namespace optiq::kernels::cuda
