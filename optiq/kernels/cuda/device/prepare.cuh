// Rows as products take them: after an optional norm, as digits of 16 bits that
// add up to them. The same bits whoever computes them, in blocks of
// kPrepareThreads threads.
#pragma once

#include "optiq/kernels/cuda/device/common.cuh"
#include "optiq/kernels/cuda/packed_layout.h"
#include "optiq/kernels/cuda/wide_layout.h"

namespace optiq::kernels::cuda {

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

/** Whether a row is what most are: aligned, with an RMS norm or none. */
__device__ __forceinline__ bool is_usual(const PrepareRows& args) {
  return args.width % 4 == 0 && !args.is_layer_norm && args.bias == nullptr;
}

/** A thread's columns of a usual row: four of each of kBatch spans that its
 * warp has in turn, loaded together; zeros behind the end. */
struct RowBatch {
  static constexpr int kBatch = 4;
  static constexpr int kStep = 4 * kPrepareThreads; // columns to the next one
  static constexpr int kColumns = kBatch * kStep; // of all threads
  float4 x[kBatch];
  float4 gains[kBatch];

  __device__ __forceinline__ void
  load_x(const PrepareRows& args, const float* row, int first) {
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = first + k * kStep;
      x[k] = i < args.width ? *reinterpret_cast<const float4*>(row + i)
                            : make_float4(0.f, 0.f, 0.f, 0.f);
    }
  }
  /** Of the norm, which no kernel writes. */
  __device__ __forceinline__ void load_gains(
      const PrepareRows& args,
      int first) {
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = first + k * kStep;
      gains[k] = args.weight != nullptr && i < args.width
          ? *reinterpret_cast<const float4*>(args.weight + i)
          : make_float4(1.f, 1.f, 1.f, 1.f);
    }
  }
};

/** What becomes of a row: y = (x - mean) * factor * gain + bias, and the power
 * of two that brings |y| below 2^15, far above what float16 rounds off. */
struct RowForm {
  float mean;
  float factor;
  float scale;
};

/** What a lane, then a warp has found in its columns of a row. */
struct Found {
  float squares;
  float largest; // of |x| times the norm's gain
};
constexpr int kPrepareWarps = kPrepareThreads / 32;

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

/** The form of any row. */
__device__ __forceinline__ RowForm
form_of(const float* x, const PrepareRows& args) {
  const int width = args.width;
  const auto n = static_cast<float>(width);
  const bool has_norm = args.weight != nullptr;
  RowForm form{0.f, 1.f, 1.f};
  if (!has_norm && args.n_digits == 0) {
    return form;
  }
  if (args.is_layer_norm) {
    float sum = 0.f;
    for (int i = 4 * threadIdx.x; i < width; i += RowBatch::kStep) {
      const float4 v = four_of(x, i, width);
      sum += v.x + v.y + (v.z + v.w);
    }
    form.mean = block_sum(sum) / n;
  }
  float squares = 0.f;
  float largest = 0.f;
  float largest_bias = 0.f;
  for (int i = 4 * threadIdx.x; i < width; i += RowBatch::kStep) {
    const float4 v = four_of(x, i, width);
    const float4 w = has_norm ? four_of(args.weight, i, width)
                              : make_float4(1.f, 1.f, 1.f, 1.f);
    const float values[4] = {v.x, v.y, v.z, v.w};
    const float gains[4] = {w.x, w.y, w.z, w.w};
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
  if (args.n_digits > 0) {
    largest = block_max(largest) * form.factor;
    if (args.bias != nullptr) {
      largest += block_max(largest_bias);
    }
    form.scale = scale_of(largest);
  }
  return form;
}

/** What a lane finds in a usual row, of which its warp has every sixteenth
 * span. The first batch's gains are at hand; leaves the last batch. */
__device__ __forceinline__ Found
find_usual(const float* x, const PrepareRows& args, RowBatch& batch) {
  float squares = 0.f;
  float largest = 0.f;
  // Threads behind the end load zeros, which they write later.
  for (int begin = 0; begin < args.width; begin += RowBatch::kColumns) {
    const int first = begin + 4 * static_cast<int>(threadIdx.x);
    batch.load_x(args, x, first);
    if (begin > 0) {
      batch.load_gains(args, first);
    }
#pragma unroll
    for (int k = 0; k < RowBatch::kBatch; ++k) {
      if (first + k * RowBatch::kStep >= args.padded) {
        break;
      }
      const float4 v = batch.x[k];
      const float4 w = batch.gains[k];
      squares = fmaf(v.x, v.x, squares);
      squares = fmaf(v.y, v.y, squares);
      squares = fmaf(v.z, v.z, squares);
      squares = fmaf(v.w, v.w, squares);
      largest = fmaxf(largest, fmaxf(fabsf(v.x * w.x), fabsf(v.y * w.y)));
      largest = fmaxf(largest, fmaxf(fabsf(v.z * w.z), fabsf(v.w * w.w)));
    }
  }
  return {squares, largest};
}

/** What an RMS norm multiplies a usual row by, beside its gains. */
__device__ __forceinline__ float norm_factor(
    const PrepareRows& args,
    const Found (&found)[kPrepareWarps]) {
  if (args.weight == nullptr) {
    return 1.f;
  }
  float squares = 0.f;
#pragma unroll
  for (int warp = 0; warp < kPrepareWarps; ++warp) {
    squares += found[warp].squares;
  }
  return 1.f / sqrtf(squares / static_cast<float>(args.width) + args.eps);
}

/** The scale of the digits of a usual row's share (arguments.h). */
__device__ __forceinline__ float share_scale(
    const PrepareRows& args,
    const Found (&found)[kPrepareWarps],
    int share) {
  static_assert(kPrepareWarps == 2 * kShares);
  return args.n_digits > 0
      ? scale_of(fmaxf(found[share].largest, found[share + kShares].largest))
      : 1.f;
}

/** Where the digits of one row go. */
struct RowDigits {
  std::uint16_t* digits; // [n_digits] rows of `padded`, `stride` apart
  long long stride;
  float* sums; // [padded / 32]
  int tile_row = -1; // in a tile of wide_layout.h, which `digits` begins; or -1
};

/** Four columns from i on of a row times its scale; a warp has a span. */
__device__ __forceinline__ void
write_digits(const float (&y)[4], int i, int n_digits, const RowDigits& to) {
  float sum[4] = {};
#pragma unroll 1
  for (int digit = 0; digit < n_digits; ++digit) {
    std::uint32_t bits[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      bits[j] = half_pair(y[2 * j] - sum[2 * j], y[2 * j + 1] - sum[2 * j + 1]);
      const float2 values = param_pair(bits[j], Number::Float16);
      sum[2 * j] += values.x;
      sum[2 * j + 1] += values.y;
    }
    std::uint16_t* at = to.digits + digit * to.stride;
    if (to.tile_row < 0) {
      *reinterpret_cast<uint2*>(at + i) = make_uint2(bits[0], bits[1]);
    } else {
      *reinterpret_cast<std::uint32_t*>(at + wide_place(to.tile_row, i)) =
          bits[0];
      *reinterpret_cast<std::uint32_t*>(at + wide_place(to.tile_row, i + 2)) =
          bits[1];
    }
  }
  float all = sum[0] + sum[1] + (sum[2] + sum[3]);
#pragma unroll
  for (int step = 4; step > 0; step /= 2) { // eight lanes have a chunk
    all += __shfl_xor_sync(kAllLanes, all, step);
  }
  if (to.tile_row < 0) {
    if (threadIdx.x % 8 == 0) {
      to.sums[i / kChunkColumns] = all;
    }
    return;
  }
  all += __shfl_xor_sync(kAllLanes, all, 8); // two chunks are half a span
  if (threadIdx.x % 16 == 0) {
    to.sums[i / kWideColumns * kWideRows + to.tile_row] = all;
  }
}

/** A span of a row, by a warp: four columns a lane, from i on: x and the norm's
 * gains. */
__device__ __forceinline__ void write_columns(
    const PrepareRows& args,
    int i,
    const float4& v,
    const float4& w,
    const RowForm& form,
    float* plain,
    const RowDigits& to) {
  float y[4] = {v.x, v.y, v.z, v.w};
  if (i < args.width && args.weight != nullptr) {
    const float4 b = args.bias != nullptr ? four_of(args.bias, i, args.width)
                                          : make_float4(0.f, 0.f, 0.f, 0.f);
    y[0] = fmaf((y[0] - form.mean) * form.factor, w.x, b.x);
    y[1] = fmaf((y[1] - form.mean) * form.factor, w.y, b.y);
    y[2] = fmaf((y[2] - form.mean) * form.factor, w.z, b.z);
    y[3] = fmaf((y[3] - form.mean) * form.factor, w.w, b.w);
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
  if (args.n_digits > 0) {
    write_digits(y, i, args.n_digits, to);
  }
}

/** A thread's share of columns [first, end) of a row, `first` being its own. */
__device__ __forceinline__ void write_row(
    const PrepareRows& args,
    const float* x,
    const RowForm& form,
    int first,
    int end,
    float* plain,
    const RowDigits& to) {
  for (int i = first; i < end; i += RowBatch::kStep) {
    const bool is_inside = i < args.width;
    const float4 none = make_float4(0.f, 0.f, 0.f, 0.f);
    const float4 v = is_inside ? four_of(x, i, args.width) : none;
    const float4 w = is_inside && args.weight != nullptr
        ? four_of(args.weight, i, args.width)
        : none;
    write_columns(args, i, v, w, form, plain, to);
  }
}

/** A warp's spans of a usual row before its norm's factor, of whose batches the
 * last is at hand. */
template <int kDigits>
__device__ __forceinline__ void write_usual(
    const PrepareRows& args,
    const float* x,
    float scale,
    RowBatch& batch,
    const RowDigits& to) {
  for (int first = 4 * static_cast<int>(threadIdx.x); first < args.padded;
       first += RowBatch::kColumns) {
    if (args.width > RowBatch::kColumns) {
      batch.load_x(args, x, first);
      batch.load_gains(args, first);
    }
#pragma unroll
    for (int k = 0; k < RowBatch::kBatch; ++k) {
      const int i = first + k * RowBatch::kStep;
      if (i >= args.padded) {
        break;
      }
      const float4 v = batch.x[k];
      const float4 w = batch.gains[k];
      const float y[4] = {
          __fmul_rn(v.x, w.x) * scale,
          __fmul_rn(v.y, w.y) * scale,
          __fmul_rn(v.z, w.z) * scale,
          __fmul_rn(v.w, w.w) * scale};
      write_digits(y, i, kDigits, to);
    }
  }
}

} // namespace optiq::kernels::cuda
