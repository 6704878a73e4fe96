// What the kernels of gated delta nets share.
#pragma once

#include "optiq/kernels/cuda/device/common.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr int kParts = 4; // of the keys' channels

__device__ __forceinline__ int channels_of(const DeltaNet& args) {
  return 2 * args.n_key_heads * args.key_dim +
      args.n_value_heads * args.value_dim;
}

__device__ __forceinline__ float* state_of(const StateSegment& segment) {
  return reinterpret_cast<float*>(segment.block);
}

/** [conv_kernel - 1][channels], the oldest row first. */
__device__ __forceinline__ float* conv_state_of(
    const StateSegment& segment,
    const DeltaNet& args) {
  return state_of(segment) +
      static_cast<long long>(args.n_value_heads) * args.key_dim *
      args.value_dim;
}

/** Row `row` of a segment, those before it from its state. */
__device__ __forceinline__ float input_at(
    const DeltaNet& args,
    const StateSegment& segment,
    int row,
    int channel) {
  const int channels = channels_of(args);
  return row < 0
      ? conv_state_of(segment, args)
            [static_cast<long long>(row + args.conv_kernel - 1) * channels +
             channel]
      : args.qkv
            [static_cast<long long>(segment.first_row + row) * channels +
             channel];
}

/** log(1 + exp(x)) without overflow. */
__device__ __forceinline__ float softplus(float x) {
  return fmaxf(x, 0.f) + log1pf(expf(-fabsf(x)));
}

/** Four numbers from shared memory. */
__device__ __forceinline__ void read4(const float* from, float (&to)[4]) {
  const float4 v = *reinterpret_cast<const float4*>(from);
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
  to[3] = v.w;
}

/** Turns q into q / |q| Dk^-1/2 and k into k / |k|; returns k . q. By a warp.
 */
__device__ __forceinline__ float
normalize_head(float* q, float* k, int dim, int lane) {
  float q_squares = 0.f;
  float k_squares = 0.f;
  for (int i = lane; i < dim; i += 32) {
    q_squares = fmaf(q[i], q[i], q_squares);
    k_squares = fmaf(k[i], k[i], k_squares);
  }
  const float q_factor =
      1.f / sqrtf(static_cast<float>(dim)) / sqrtf(warp_sum(q_squares) + 1e-6f);
  const float k_factor = 1.f / sqrtf(warp_sum(k_squares) + 1e-6f);
  float dot = 0.f;
  for (int i = lane; i < dim; i += 32) {
    q[i] *= q_factor;
    k[i] *= k_factor;
    dot = fmaf(q[i], k[i], dot);
  }
  return warp_sum(dot);
}

/** The gates of a value head, `at` in [T, heads]. */
__device__ __forceinline__ float
decay_at(const DeltaNet& args, long long at, int head) {
  const float step = softplus(args.a[at] + args.dt_bias[head]);
  return expf(-expf(args.a_log[head]) * step);
}
__device__ __forceinline__ float beta_at(const DeltaNet& args, long long at) {
  return 1.f / (1.f + expf(-args.b[at]));
}

/** What a part of a column of the state has of k . S and q . S: the sum of its
 * halves', each in the order of rows. */
template <int kRows>
__device__ __forceinline__ float2
products_of_part(const float (&state)[kRows], const float* q, const float* k) {
  float memory[2] = {};
  float out[2] = {};
#pragma unroll
  for (int i = 0; i < kRows; i += 4) {
    const int half = i / (kRows / 2);
    float of_q[4];
    float of_k[4];
    read4(q + i, of_q);
    read4(k + i, of_k);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      memory[half] = fmaf(state[i + j], of_k[j], memory[half]);
      out[half] = fmaf(state[i + j], of_q[j], out[half]);
    }
  }
  return {memory[0] + memory[1], out[0] + out[1]};
}

/** The sums over all parts. */
template <int kColumns>
__device__ __forceinline__ float2
sum_of_parts(const float (&sums)[2][kParts][kColumns], int column) {
  float memory = 0.f;
  float out = 0.f;
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    memory += sums[0][p][column];
    out += sums[1][p][column];
  }
  return {memory, out};
}

} // namespace
} // namespace optiq::kernels::cuda
