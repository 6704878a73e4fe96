// Rows as products take them: after an optional norm, as digits of 16 bits that
// add up to them. The same bits whoever computes them, in blocks of
// kPrepareThreads threads.
#pragma once

#include "optiq/kernels/cuda/device/common.cuh"
#include "optiq/kernels/cuda/packed_layout.h"

namespace optiq::kernels::cuda {

inline constexpr int kPrepareThreads = 256;

/** Columns [i, i + 4) of an array of `width` floats, i below it and a multiple
 * of 4; zeros behind the end. */
__device__ __forceinline__ float4 four_of(const float* x, int i, int width) {
  if (width % 4 == 0) {
    return *reinterpret_cast<const float4*>(x + i);
  }
  return make_float4(
      x[i],
      i + 1 < width ? x[i + 1] : 0.f,
      i + 2 < width ? x[i + 2] : 0.f,
      i + 3 < width ? x[i + 3] : 0.f);
}

/** What becomes of a row: y = (x - mean) * factor * gain + bias, and the power
 * of two that brings |y| below 2^15, far above what float16 rounds off. */
struct RowForm {
  float mean;
  float factor;
  float scale;
};

/** A power of two as float16 digits want it; 1 for rows that are not finite. */
__device__ __forceinline__ float scale_of(float largest) {
  const int exponent = static_cast<int>(__float_as_uint(largest) >> 23 & 255);
  const int wanted = exponent == 255 ? 127 : min(268 - exponent, 253);
  return __uint_as_float(static_cast<std::uint32_t>(wanted) << 23);
}

/** The other way, exactly: scales are from 2^-113 to 2^126. */
__device__ __forceinline__ float inverse_scale(float scale) {
  return __uint_as_float((254u << 23) - __float_as_uint(scale));
}

__device__ __forceinline__ RowForm
form_of(const float* x, const PrepareRows& args) {
  const int width = args.width;
  const auto n = static_cast<float>(width);
  const bool has_norm = args.weight != nullptr;
  RowForm form{0.f, 1.f, 1.f};
  if (!has_norm && !args.is_half) {
    return form;
  }
  if (args.is_layer_norm) {
    float sum = 0.f;
#pragma unroll 4
    for (int i = 4 * threadIdx.x; i < width; i += 4 * kPrepareThreads) {
      const float4 v = four_of(x, i, width);
      sum += v.x + v.y + (v.z + v.w);
    }
    form.mean = block_sum(sum) / n;
  }
  float squares = 0.f;
  float largest = 0.f;
  float largest_bias = 0.f;
#pragma unroll 4
  for (int i = 4 * threadIdx.x; i < width; i += 4 * kPrepareThreads) {
    const float4 v = four_of(x, i, width);
    const float values[4] = {v.x, v.y, v.z, v.w};
    float gains[4] = {1.f, 1.f, 1.f, 1.f};
    if (has_norm) {
      const float4 w = four_of(args.weight, i, width);
      gains[0] = w.x;
      gains[1] = w.y;
      gains[2] = w.z;
      gains[3] = w.w;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float centered = i + j < width ? values[j] - form.mean : 0.f;
      squares = fmaf(centered, centered, squares);
      largest = fmaxf(largest, fabsf(centered * gains[j]));
    }
    if (args.bias != nullptr) {
      const float4 b = four_of(args.bias, i, width);
      largest_bias = fmaxf(
          fmaxf(largest_bias, fmaxf(fabsf(b.x), fabsf(b.y))),
          fmaxf(fabsf(b.z), fabsf(b.w)));
    }
  }
  if (has_norm) {
    form.factor = 1.f / sqrtf(block_sum(squares) / n + args.eps);
  }
  if (args.is_half) {
    largest = block_max(largest) * form.factor;
    if (args.bias != nullptr) {
      largest += block_max(largest_bias);
    }
    form.scale = scale_of(largest);
  }
  return form;
}

/** Where the digits of one row go. */
struct RowDigits {
  std::uint16_t* digits; // [n_digits] rows of `padded`, `stride` apart
  long long stride;
  float* sums; // [padded / 32]
};

__device__ __forceinline__ std::uint32_t digit_bits(float x, bool is_half) {
  return is_half ? __half_as_ushort(__float2half_rn(x))
                 : __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

/** One span of a row, by a warp: four columns a lane. */
__device__ __forceinline__ void write_span(
    const PrepareRows& args,
    const float* x,
    const RowForm& form,
    int span,
    float* plain,
    const RowDigits& to) {
  const int lane = threadIdx.x % 32;
  const int i = span * kSpanColumns + 4 * lane;
  float y[4] = {};
  if (i < args.width) {
    const float4 v = four_of(x, i, args.width);
    y[0] = v.x;
    y[1] = v.y;
    y[2] = v.z;
    y[3] = v.w;
    if (args.weight != nullptr) {
      const float4 w = four_of(args.weight, i, args.width);
      const float4 b = args.bias != nullptr ? four_of(args.bias, i, args.width)
                                            : make_float4(0.f, 0.f, 0.f, 0.f);
      y[0] = fmaf((y[0] - form.mean) * form.factor, w.x, b.x);
      y[1] = fmaf((y[1] - form.mean) * form.factor, w.y, b.y);
      y[2] = fmaf((y[2] - form.mean) * form.factor, w.z, b.z);
      y[3] = fmaf((y[3] - form.mean) * form.factor, w.w, b.w);
    }
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (i + j >= args.width) {
      y[j] = 0.f;
    } else if (plain != nullptr) {
      plain[i + j] = y[j];
    }
    y[j] *= form.scale;
  }
  if (args.n_digits == 0) {
    return;
  }
  float sum[4] = {};
  for (int digit = 0; digit < args.n_digits; ++digit) {
    std::uint32_t bits[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      bits[j] = digit_bits(y[j] - sum[j], args.is_half);
      sum[j] += args.is_half ? half_bits(bits[j]) : bf16_bits(bits[j]);
    }
    *reinterpret_cast<uint2*>(to.digits + digit * to.stride + i) =
        make_uint2(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16);
  }
  float all = sum[0] + sum[1] + (sum[2] + sum[3]);
#pragma unroll
  for (int step = 4; step > 0; step /= 2) { // eight lanes have a chunk
    all += __shfl_xor_sync(kAllLanes, all, step);
  }
  if (lane % 8 == 0) {
    to.sums[i / kChunkColumns] = all;
  }
}

} // namespace optiq::kernels::cuda
