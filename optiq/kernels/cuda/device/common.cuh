// What kernels share. Sums have a fixed order: a row's bits depend on nothing
// but the row.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "optiq/kernels/cuda/arguments.h"
#include "optiq/kernels/cuda/device/instructions.cuh"

namespace optiq::kernels::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ float bf16_bits(std::uint32_t bits) {
  return __uint_as_float(bits << 16);
}

__device__ __forceinline__ float half_bits(std::uint32_t bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}

/** Two numbers in float16. */
__device__ __forceinline__ std::uint32_t half_pair(float a, float b) {
  const __half2 both = __floats2half2_rn(a, b);
  return *reinterpret_cast<const std::uint32_t*>(&both);
}

/** Element i of an array of some type. */
__device__ __forceinline__ float
number_at(const void* from, Number type, long long i) {
  if (type == Number::Float32) {
    return static_cast<const float*>(from)[i];
  }
  const std::uint32_t bits = static_cast<const unsigned short*>(from)[i];
  return type == Number::BFloat16 ? bf16_bits(bits) : half_bits(bits);
}

/** A (scale, bias) pair of two halves. */
__device__ __forceinline__ float2 param_pair(std::uint32_t bits, Number type) {
  return type == Number::BFloat16
      ? make_float2(bf16_bits(bits & 0xffff), bf16_bits(bits >> 16))
      : make_float2(half_bits(bits & 0xffff), half_bits(bits >> 16));
}

/** Two halves less two others. */
__device__ __forceinline__ std::uint32_t half2_difference(
    std::uint32_t a,
    std::uint32_t b) {
  const __half2 d = __hsub2(
      *reinterpret_cast<const __half2*>(&a),
      *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const std::uint32_t*>(&d);
}

/** Two codes of kBits, one in each half, in bfloat16, which holds them. */
template <int kBits>
__device__ __forceinline__ std::uint32_t bf16_codes(std::uint32_t both) {
  static_assert(kBits == 4 || kBits == 8);
  __nv_bfloat162 v;
  if constexpr (kBits == 4) { // 128 + code, less 128
    constexpr std::uint32_t kMagic = 0x43004300u;
    both |= kMagic;
    v = __hsub2(
        *reinterpret_cast<const __nv_bfloat162*>(&both),
        *reinterpret_cast<const __nv_bfloat162*>(&kMagic));
  } else { // 2^23 + code in float32, less 2^23
    v = __floats2bfloat162_rn(
        __uint_as_float(0x4b000000u | (both & 0xff)) - 8388608.f,
        __uint_as_float(0x4b000000u | both >> 16) - 8388608.f);
  }
  return *reinterpret_cast<const std::uint32_t*>(&v);
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, step);
  }
  return x;
}

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, step);
  }
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  }
  return x;
}

/** The same of numbers that are not negative: their bits are in their order. */
__device__ __forceinline__ float warp_largest(float x) {
  return __uint_as_float(__reduce_max_sync(kAllLanes, __float_as_uint(x)));
}

__device__ __forceinline__ float warp_min(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    x = fminf(x, __shfl_xor_sync(kAllLanes, x, step));
  }
  return x;
}

/** The sum over the block's threads, which every thread gets. */
template <class T>
__device__ __forceinline__ T block_sum(T x) {
  __shared__ T parts[32];
  const int warps = (blockDim.x + 31) / 32;
  x = warp_sum(x);
  __syncthreads(); // who still reads the last sum
  if (threadIdx.x % 32 == 0) {
    parts[threadIdx.x / 32] = x;
  }
  __syncthreads();
  T sum = 0;
  for (int i = 0; i < warps; ++i) {
    sum += parts[i];
  }
  return sum;
}

/** The largest of the block's threads' numbers, which every thread gets. */
__device__ __forceinline__ float block_max(float x) {
  __shared__ float parts[32];
  const int warps = (blockDim.x + 31) / 32;
  x = warp_max(x);
  __syncthreads(); // who still reads the last one
  if (threadIdx.x % 32 == 0) {
    parts[threadIdx.x / 32] = x;
  }
  __syncthreads();
  float largest = parts[0];
  for (int i = 1; i < warps; ++i) {
    largest = fmaxf(largest, parts[i]);
  }
  return largest;
}

/** A power of two that brings numbers up to `largest` below 2^15. */
__device__ __forceinline__ float factor_below_half(float largest) {
  const int exponent = static_cast<int>(__float_as_uint(largest) >> 23);
  const int wanted = min(max(268 - exponent, 1), 253);
  return __uint_as_float(static_cast<unsigned>(wanted) << 23);
}
/** One over a power of two that is not too small. */
__device__ __forceinline__ float inverse_of(float power) {
  return __uint_as_float((254u << 23) - __float_as_uint(power));
}

/** A number as two of bfloat16, or of float16, the larger in the low half. */
template <bool kIsBFloat16>
__device__ __forceinline__ std::uint32_t two_digits(float x) {
  if constexpr (kIsBFloat16) {
    const float high = __bfloat162float(__float2bfloat16_rn(x));
    const __nv_bfloat162 both = __floats2bfloat162_rn(x, __fsub_rn(x, high));
    return *reinterpret_cast<const std::uint32_t*>(&both);
  } else {
    const float high = __half2float(__float2half_rn(x));
    const __half2 both = __floats2half2_rn(x, __fsub_rn(x, high));
    return *reinterpret_cast<const std::uint32_t*>(&both);
  }
}

__device__ __forceinline__ float silu(float x) {
  return x / (1.f + expf(-x));
}

__device__ __forceinline__ float gelu_tanh(float x) {
  const float u = 0.7978845608028654f * fmaf(0.044715f * x * x, x, x);
  return 0.5f * x * (1.f + tanhf(u));
}

} // namespace optiq::kernels::cuda
