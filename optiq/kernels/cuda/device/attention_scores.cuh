// Scores and weights of a span (attention_tiles.cu).
#pragma once

#include "optiq/kernels/cuda/device/channels.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kDigits = 3;
constexpr int kWarpTokens = kSpanTokens / kWarps;
constexpr int kTokenTiles = kWarpTokens / 8;
static_assert(kThreads == kSpanTokens, "a thread stages a token's scales");
static_assert(kWarpTokens == kChunkTokens);

/** What a block keeps in shared memory, in this order. */
template <int kDim, int kKeyBits, int kValueBits>
struct Memory {
  // Rows of 64 bytes more: two of them lie in different banks.
  static constexpr int kQueryStride = kDim + 32;
  static constexpr int kWeightStride = kSpanTokens + 32;
  std::uint16_t queries[kDigits][kTileQueries][kQueryStride];
  union {
    // With values in codes, whose scales they take first.
    float weights[kTileQueries][kSpanTokens + 4];
    std::uint16_t digits[kDigits][kTileQueries][kWeightStride]; // dense ones'
  };
  float sums[kTileQueries][kMaxKvGroups]; // of a query's channels in a group
  float warp_maxima[kWarps][kTileQueries];
  float warp_sums[kWarps][kTileQueries];
  const char* keys[kSpanTokens / kBlockTokens]; // of the span
  const char* values[kSpanTokens / kBlockTokens];
  // [groups][kSpanTokens] (scale, bias) of keys, then of values, follow.
};

/** Where the codes of a token begin. */
template <int kBits>
__device__ __forceinline__ const char*
token_of(const KvSide& side, const char* block, int token, int dim) {
  return kBits == kDense
      ? block + token * dim * 2
      : block + side.parts[0].words_at + token * side.parts[0].words * 4;
}

/** Queries as digits, and sums of their channels in the keys' groups. A thread
 * has a sixteenth of a query, which begins at `q`. */
template <int kDim, int kKeyBits, int kValueBits>
__device__ __forceinline__ void read_queries(
    const Attend& args,
    const AttendItem& item,
    const float* q,
    Memory<kDim, kKeyBits, kValueBits>& memory) {
  constexpr int kShare = kDim / 16;
  const int query = threadIdx.x / 16;
  const int begin = threadIdx.x % 16 * kShare;
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    const int channel = begin + i;
    float rest = query < item.n_queries ? q[channel] : 0.f;
    sum += rest;
    const int place =
        channel / 8 * 8 + Channels<kKeyBits>::place_of(channel % 8);
#pragma unroll
    for (int digit = 0; digit < kDigits; ++digit) {
      const __nv_bfloat16 d = __float2bfloat16_rn(rest);
      memory.queries[digit][query][place] = __bfloat16_as_ushort(d);
      rest -= __bfloat162float(d);
    }
  }
  if constexpr (kKeyBits != kDense) {
    const int threads = args.shape.key.parts[0].group / kShare;
    for (int step = threads / 2; step > 0; step /= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, step);
    }
    if (threadIdx.x % threads == 0) {
      memory.sums[query][threadIdx.x % 16 / threads] = sum;
    }
  }
}

/** (scale, bias) of a token in groups of its channels, a thread each; zeros of
 * tokens that no query sees. All are read before the first is kept, which might
 * be what is read. */
struct TokenParams {
  static constexpr int kAtOnce = 4;
  float2 values[kAtOnce];

  __device__ __forceinline__ void
  load(const KvSide& side, const char* block, bool is_seen, int first) {
    const KvPart& part = side.parts[0];
    const int groups = part.padded / part.group;
    const int at = threadIdx.x % kBlockTokens * groups + first;
    const auto* scales =
        reinterpret_cast<const __nv_bfloat16*>(block + part.scales_at) + at;
    const auto* biases =
        reinterpret_cast<const __nv_bfloat16*>(block + part.biases_at) + at;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      values[i] = is_seen && first + i < groups
          ? make_float2(
                __bfloat162float(scales[i]), __bfloat162float(biases[i]))
          : make_float2(0.f, 0.f);
    }
  }
  __device__ __forceinline__ void
  keep(const KvSide& side, int first, float2* to) const {
    const KvPart& part = side.parts[0];
    const int groups = part.padded / part.group;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i < groups) {
        to[(first + i) * kSpanTokens + threadIdx.x] = values[i];
      }
    }
  }
};

/** Scores of a warp's 32 tokens: of rows lane / 4 and + 8, tokens 8 j + lane %
 * 4
 * * 2 and + 1. */
template <int kDim, int kKeyBits, int kValueBits>
__device__ __forceinline__ void score_tokens(
    const KvSide& side,
    const Memory<kDim, kKeyBits, kValueBits>& memory,
    const float2* params,
    int position,
    Seen seen,
    float (&scores)[kTokenTiles][4]) {
  constexpr int kChunks = kDim / 32;
  // Keys on their way at once: in at most 64 registers.
  constexpr int kTileWords = kChunks * kKeyBits / 4;
  constexpr int kAtOnce = kTileWords > 16 ? 2 : kTokenTiles;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const char* block = memory.keys[warp / 2];
  const int chunks_per_group =
      kKeyBits == kDense ? kChunks : side.parts[0].group / 32;
#pragma unroll
  for (int first = 0; first < kTokenTiles; first += kAtOnce) {
    Channels<kKeyBits> keys[kAtOnce][kChunks];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int token = 8 * (first + j) + lane / 4;
      const bool is_seen =
          position + token >= seen.first && position + token <= seen.last;
      const char* from =
          token_of<kKeyBits>(side, block, warp % 2 * kWarpTokens + token, kDim);
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        if (is_seen) {
          keys[j][c].load(from, 32 * c + lane % 4 * 8);
        } else {
          keys[j][c].clear();
        }
      }
    }
    float sums[kAtOnce][4] = {};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int digit = 0; digit < kDigits; ++digit) {
        const auto row = [&](int query) {
          return *reinterpret_cast<const uint4*>(
              &memory.queries[digit][query][32 * c + lane % 4 * 8]);
        };
        const uint4 low = row(lane / 4);
        const uint4 high = row(lane / 4 + 8);
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
          mma_bf16(
              sums[j],
              low.x,
              high.x,
              low.y,
              high.y,
              keys[j][c].pair(0),
              keys[j][c].pair(1));
          mma_bf16(
              sums[j],
              low.z,
              high.z,
              low.w,
              high.w,
              keys[j][c].pair(2),
              keys[j][c].pair(3));
        }
      }
      if constexpr (kKeyBits != kDense) {
        if ((c + 1) % chunks_per_group != 0) {
          continue;
        }
        const int group = c / chunks_per_group;
        const float low = memory.sums[lane / 4][group];
        const float high = memory.sums[lane / 4 + 8][group];
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float2 param = params
                [group * kSpanTokens + warp * kWarpTokens + 8 * (first + j) +
                 lane % 4 * 2 + i % 2];
            scores[first + j][i] = fmaf(
                param.y,
                i < 2 ? low : high,
                fmaf(param.x, sums[j][i], scores[first + j][i]));
            sums[j][i] = 0.f;
          }
        }
      }
    }
    if constexpr (kKeyBits == kDense) {
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          scores[first + j][i] = sums[j][i];
        }
      }
    }
  }
}

/** Two numbers' digits, the largest first: each pair of them leaves its rest.
 */
__device__ __forceinline__ std::uint32_t next_digits(float& a, float& b) {
  const std::uint32_t low = __bfloat16_as_ushort(__float2bfloat16_rn(a));
  const std::uint32_t high = __bfloat16_as_ushort(__float2bfloat16_rn(b));
  a -= bf16_bits(low);
  b -= bf16_bits(high);
  return low | high << 16;
}

/** Two weights of neighbouring tokens into shared memory. */
template <int kDim, int kKeyBits, int kValueBits>
__device__ __forceinline__ void keep_weights(
    float a,
    float b,
    int query,
    int token,
    Memory<kDim, kKeyBits, kValueBits>& memory) {
  if constexpr (kValueBits == kDense) {
#pragma unroll
    for (int digit = 0; digit < kDigits; ++digit) {
      *reinterpret_cast<std::uint32_t*>(&memory.digits[digit][query][token]) =
          next_digits(a, b);
    }
  } else {
    *reinterpret_cast<float2*>(&memory.weights[query][token]) =
        make_float2(a, b);
  }
}

/** Scores into weights in shared memory; (m, l) of the lane's two queries. */
template <class Memory>
__device__ __forceinline__ void weigh_tokens(
    const Attend& args,
    const AttendItem& item,
    int group,
    int position,
    Memory& memory,
    float (&scores)[kTokenTiles][4],
    float (&maxima)[2],
    float (&sums)[2]) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  if (args.softcap > 0.f) {
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[j][i] = args.softcap * tanhf(scores[j][i] / args.softcap);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (8 * r >= item.n_queries) {
      break;
    }
    const int query = lane / 4 + 8 * r;
    const Seen seen = seen_by(args, item, query, group);
    float maximum = -INFINITY;
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[j][2 * r + i];
        const int at = position + 8 * j + lane % 4 * 2 + i;
        score = at >= seen.first && at <= seen.last ? score : -INFINITY;
        maximum = fmaxf(maximum, score);
      }
    }
    maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, 2));
    if (lane % 4 == 0) {
      memory.warp_maxima[warp][query] = maximum;
    }
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (8 * r >= item.n_queries) {
      break; // their weights stay what they are, and what comes of them
    }
    const int query = lane / 4 + 8 * r;
    float maximum = memory.warp_maxima[0][query];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      maximum = fmaxf(maximum, memory.warp_maxima[w][query]);
    }
    maxima[r] = maximum;
    float sum = 0.f;
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
      float p[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float score = scores[j][2 * r + i];
        p[i] = score == -INFINITY ? 0.f : expf(score - maximum);
        sum += p[i];
      }
      const int token = warp * kWarpTokens + 8 * j + lane % 4 * 2;
      keep_weights(p[0], p[1], query, token, memory);
    }
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    if (lane % 4 == 0) {
      memory.warp_sums[warp][query] = sum;
    }
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (8 * r >= item.n_queries) {
      break;
    }
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      sum += memory.warp_sums[w][lane / 4 + 8 * r];
    }
    sums[r] = sum;
  }
}

} // namespace
} // namespace optiq::kernels::cuda
