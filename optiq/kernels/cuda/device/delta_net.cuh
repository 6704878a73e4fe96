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

} // namespace
} // namespace optiq::kernels::cuda
