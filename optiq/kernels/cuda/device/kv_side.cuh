// Where keys and values lie in a block, and how they are read:
//
//   block   for each kv head: its keys, then its values
//   dense   float32 or bfloat16 [64 tokens][head_dim]
//   affine  per part: u32 words [64][words], bf16 scales [64][groups], biases
//   turbo   f16 norms [64], then per part u32 words [64][words]
#pragma once

#include <cmath>

#include "optiq/kernels/cuda/device/common.cuh"
#include "optiq/kernels/cuda/packed_layout.h"

namespace optiq::kernels::cuda {

inline constexpr int kBlockTokens = 64;

__device__ __forceinline__ char*
side_of(const KvShape& shape, unsigned long long block, int head, bool is_key) {
  const long long per_head = shape.key.bytes + shape.value.bytes;
  return reinterpret_cast<char*>(block) + head * per_head +
      (is_key ? 0 : shape.key.bytes);
}

/** What reading a packed side takes besides the block: a table of centroids in
 * shared memory, one row per part. */
using Centroids = float[2][32];

__device__ __forceinline__ void copy_centroids(
    const KvSide& side,
    Centroids& table) {
  if (side.code == KvCode::Turbo) {
    const int part = threadIdx.x / 32 % 2;
    if (threadIdx.x < 64 && part < side.n_parts) {
      table[part][threadIdx.x % 32] =
          side.parts[part].centroids[threadIdx.x % 32];
    }
  }
}

/** Channels of one token of a packed side, as a warp reads them. */
__device__ __forceinline__ void read_packed(
    const KvSide& side,
    const Centroids& table,
    const char* from,
    int token,
    float* to) {
  const int lane = threadIdx.x % 32;
  float norm = 0.f;
  if (side.code == KvCode::Turbo) {
    norm = __half2float(reinterpret_cast<const __half*>(from)[token]) /
        sqrtf(static_cast<float>(side.head_dim));
  }
  for (int p = 0; p < side.n_parts; ++p) {
    const KvPart& part = side.parts[p];
    const auto* words =
        reinterpret_cast<const std::uint32_t*>(from + part.words_at) +
        static_cast<long long>(token) * part.words;
    const int groups =
        side.code == KvCode::Affine ? part.padded / part.group : 0;
    const auto* scales =
        reinterpret_cast<const __nv_bfloat16*>(from + part.scales_at) +
        token * groups;
    const auto* biases =
        reinterpret_cast<const __nv_bfloat16*>(from + part.biases_at) +
        token * groups;
    for (int i = lane; i < part.channels; i += 32) {
      const std::uint32_t code = stream_code(words, i, part.bits);
      to[part.begin + i] = side.code == KvCode::Affine
          ? fmaf(
                __bfloat162float(scales[i / part.group]),
                static_cast<float>(code),
                __bfloat162float(biases[i / part.group]))
          : table[p][code] * norm;
    }
  }
}

} // namespace optiq::kernels::cuda
