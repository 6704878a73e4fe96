// What products of many rows on warp groups (compute capability 9.0) have in
// common whose blocks of threads go through tasks of 128 rows of x and twice or
// four times 64 outputs: two warp groups multiply, W being the A operand of
// wgmma.m64n128k16, from registers, x its B operand, from shared memory. A
// third group copies.
#pragma once

#include "optiq/kernels/cuda/device/hopper.cuh"
#include "optiq/kernels/cuda/device/product_sums.cuh"
#include "optiq/kernels/cuda/device/product_task.cuh"

namespace optiq::kernels::cuda {

/** A lane's results are of tokens lane % 4 * 2 and + 1 of every eight. What is
 * read is read for several of these before one is written, which might be what
 * is read. */
inline constexpr int kEightsAtOnce = 2;

namespace {

constexpr int kHalves = 2; // of a span: 64 columns
constexpr int kTokens = kWideRows;

/** Who shares a task of 64 kWidth outputs. */
template <int kWidth>
struct WideShape {
  static constexpr int kGroups = 2; // of warps, which multiply
  static constexpr int kEach = kWidth / kGroups; // operands of a warp
  // Of the warp group that copies: what it gives up the others take.
  static constexpr int kFewRegisters = 24;
  static constexpr int kManyRegisters = 240;
};

template <int kWidth>
using WideTask = RowTask<4 * kWidth, kTokens>;

/** Which stage of a ring is next, and in which turn around. */
template <int kStages>
struct RingPlace {
  int at = 0;
  int parity = 0;

  __device__ __forceinline__ void move() {
    ++at;
    if (at == kStages) {
      at = 0;
      parity ^= 1;
    }
  }
};

/** Starts the products of half a span. */
template <int kSums>
__device__ __forceinline__ void start_products(
    const void* digits,
    const std::uint32_t (&a)[4][4],
    float (&acc)[kSums]) {
  begin_products();
  const std::uint64_t b = operand_of(digits);
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    multiply_group(acc, a[step], b + 2 * step, true);
  }
  end_products();
}

/** Scales of the tokens from `token` on, two of each eight, and 0 behind the
 * last. */
template <int kEights>
__device__ __forceinline__ void read_scales(
    const Multiply& args,
    int token,
    float factor,
    float (&to)[kEights][2]) {
#pragma unroll
  for (int k = 0; k < kEights; ++k) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = token + 8 * k + i;
      to[k][i] = at < args.rows ? args.scales[at] * factor : 0.f;
    }
  }
}

/** y = unit sums + bias + residual. */
template <int kSums>
__device__ __forceinline__ void write_outputs(
    const Multiply& args,
    const MultiplyPart& part,
    int token,
    int output,
    float unit,
    const float (&acc)[kSums]) {
  float bias[2] = {};
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    if (part.bias != nullptr && output + 8 * row < part.out) {
      bias[row] = part.bias[output + 8 * row];
    }
  }
#pragma unroll
  for (int j = 0; j < kTokens / 8; j += kEightsAtOnce) {
    float scales[kEightsAtOnce][2];
    read_scales(args, token + 8 * j, unit, scales);
    float residual[kEightsAtOnce][4] = {};
    const auto each = [&](const auto& what) {
#pragma unroll
      for (int k = 0; k < kEightsAtOnce; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = token + 8 * (j + k) + i % 2;
          const int column = output + i / 2 * 8;
          if (row < args.rows && column < part.out) {
            what(k, i, static_cast<long long>(row) * part.out + column);
          }
        }
      }
    };
    if (part.residual != nullptr) {
      each([&](int k, int i, long long at) {
        residual[k][i] = part.residual[at];
      });
    }
    each([&](int k, int i, long long at) {
      part.y[at] = residual[k][i] +
          fmaf(acc[4 * (j + k) + i], scales[k][i % 2], bias[i / 2]);
    });
  }
}

} // namespace
} // namespace optiq::kernels::cuda
