// Attention on tensor cores, for heads of 64, 128 and 256 channels with keys
// and values in bfloat16 or in affine codes of 4 and 8 bits. Like attention.cu
// it goes by spans at absolute multiples of 256 tokens, whose partials are
// joined in order; within a span weights are exp(s - m) with the largest score
// m of the span.
//
// A block of threads has 16 queries that share a kv head. Of the scores, q K^T,
// a warp has 32 tokens; of the values, P V, an eighth of the channels. q and P
// are three bfloat16 digits (all of float32), codes are exact integers:
//
//   score = sum over groups: s_k (sum q c) + b_k (sum q)
//   value = sum over tokens: (p s_v) c + p b_v
//
// so nothing is rounded but sums. A query's bits depend on its own tokens
// alone.
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
  std::uint16_t queries[kDigits][kTileQueries][kQueryStride];
  float weights[kTileQueries][kSpanTokens + 4];
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
 * has a sixteenth of a query. */
template <int kDim, int kKeyBits, int kValueBits>
__device__ __forceinline__ void read_queries(
    const Attend& args,
    const AttendItem& item,
    int group,
    Memory<kDim, kKeyBits, kValueBits>& memory) {
  constexpr int kShare = kDim / 16;
  const int query = threadIdx.x / 16;
  const int begin = threadIdx.x % 16 * kShare;
  const int at = item.first_query + query;
  const float* q = args.q +
      (static_cast<long long>(item.first_row + at / group) * args.n_heads +
       static_cast<int>(blockIdx.y) * group + at % group) *
          kDim;
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

/** (scale, bias) of the span's tokens, a thread each; zeros of those that no
 * query sees. */
__device__ __forceinline__ void
stage_params(const KvSide& side, const char* block, bool is_seen, float2* to) {
  const KvPart& part = side.parts[0];
  const int groups = part.padded / part.group;
  const int token = threadIdx.x % kBlockTokens;
  for (int g = 0; g < groups; ++g) {
    float2 param = make_float2(0.f, 0.f);
    if (is_seen) {
      const int at = token * groups + g;
      param.x = __bfloat162float(
          reinterpret_cast<const __nv_bfloat16*>(block + part.scales_at)[at]);
      param.y = __bfloat162float(
          reinterpret_cast<const __nv_bfloat16*>(block + part.biases_at)[at]);
    }
    to[g * kSpanTokens + threadIdx.x] = param;
  }
}

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
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int query = lane / 4 + 8 * r;
    const Seen seen = seen_by(args, item, query, group);
    float maximum = -INFINITY;
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[j][2 * r + i];
        if (args.softcap > 0.f) {
          score = args.softcap * tanhf(score / args.softcap);
        }
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
      *reinterpret_cast<float2*>(
          &memory.weights[query][warp * kWarpTokens + 8 * j + lane % 4 * 2]) =
          make_float2(p[0], p[1]);
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
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      sum += memory.warp_sums[w][lane / 4 + 8 * r];
    }
    sums[r] = sum;
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

/** Values of a span on their way: of chunk c in place c % kAhead, of each the
 * lane's eight tokens and kTiles channels. */
template <int kDim, int kValueBits>
struct Values {
  static constexpr int kTiles = kDim / 64;
  static constexpr int kAhead = 4;
  static constexpr int kChunks = kSpanTokens / kChunkTokens;
  using Few = FewChannels<kValueBits, kTiles>;
  Few tokens[kAhead][8];

  template <class Memory>
  __device__ __forceinline__ void load(
      const KvSide& side,
      const Memory& memory,
      int chunk,
      int position,
      Seen seen) {
    const int lane = threadIdx.x % 32;
    const int channel = static_cast<int>(threadIdx.x) / 32 * (kDim / kWarps) +
        lane / 4 * kTiles;
    const int first = chunk * kChunkTokens + lane % 4 * 8;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const int at = position + first + k;
      Few& token = tokens[chunk % kAhead][k];
      if (at >= seen.first && at <= seen.last) {
        token.load(
            token_of<kValueBits>(
                side,
                memory.values[chunk / 2],
                (first + k) % kBlockTokens,
                kDim),
            channel);
      } else {
        token.clear();
      }
    }
  }
};

/** The weighted sum of a span's values: of rows lane / 4 and + 8, channels
 * lane % 4 * 2 and + 1, kTiles apart, of the warp's. The first kAhead chunks
 * are on their way. */
template <int kDim, int kKeyBits, int kValueBits>
__device__ __forceinline__ void add_values(
    const KvSide& side,
    const Memory<kDim, kKeyBits, kValueBits>& memory,
    const float2* params,
    int position,
    Seen seen,
    Values<kDim, kValueBits>& ring,
    float (&values)[kDim / 64][4]) {
  using Ring = Values<kDim, kValueBits>;
  using Few = typename Ring::Few;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  if constexpr (kValueBits != kDense) {
    params += warp * (kDim / kWarps) / side.parts[0].group * kSpanTokens;
  }
  float biases[2] = {};
#pragma unroll
  for (int c = 0; c < Ring::kChunks; ++c) {
    const int first = c * kChunkTokens + lane % 4 * 8; // the lane's eight
    if (position + c * kChunkTokens > seen.last) {
      break;
    }
    const Few(&tokens)[8] = ring.tokens[c % Ring::kAhead];
    float p[2][8];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int k = 0; k < 8; k += 4) {
        const float4 v = *reinterpret_cast<const float4*>(
            &memory.weights[lane / 4 + 8 * r][first + k]);
        p[r][k] = v.x;
        p[r][k + 1] = v.y;
        p[r][k + 2] = v.z;
        p[r][k + 3] = v.w;
      }
    }
    if constexpr (kValueBits != kDense) {
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const float2 param = params[first + k];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          biases[r] = fmaf(p[r][k], param.y, biases[r]);
          p[r][k] *= param.x;
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int k = 4 * half;
      std::uint32_t b[Ring::kTiles][2];
#pragma unroll
      for (int n = 0; n < Ring::kTiles; ++n) {
        b[n][0] = Few::pair(tokens[k], tokens[k + 1], n);
        b[n][1] = Few::pair(tokens[k + 2], tokens[k + 3], n);
      }
#pragma unroll
      for (int digit = 0; digit < kDigits; ++digit) {
        const std::uint32_t a0 = next_digits(p[0][k], p[0][k + 1]);
        const std::uint32_t a1 = next_digits(p[1][k], p[1][k + 1]);
        const std::uint32_t a2 = next_digits(p[0][k + 2], p[0][k + 3]);
        const std::uint32_t a3 = next_digits(p[1][k + 2], p[1][k + 3]);
#pragma unroll
        for (int n = 0; n < Ring::kTiles; ++n) {
          mma_bf16(values[n], a0, a1, a2, a3, b[n][0], b[n][1]);
        }
      }
    }
    if (c + Ring::kAhead < Ring::kChunks) {
      ring.load(side, memory, c + Ring::kAhead, position, seen);
    }
  }
  if constexpr (kValueBits != kDense) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      biases[r] += __shfl_xor_sync(kAllLanes, biases[r], 1);
      biases[r] += __shfl_xor_sync(kAllLanes, biases[r], 2);
#pragma unroll
      for (int n = 0; n < Ring::kTiles; ++n) {
        values[n][2 * r] += biases[r];
        values[n][2 * r + 1] += biases[r];
      }
    }
  }
}

/** Sums of a lane's two queries, of one span or of several. */
template <int kTiles>
struct Sums {
  float maxima[2] = {-INFINITY, -INFINITY};
  float weights[2] = {};
  float values[kTiles][4] = {};

  __device__ __forceinline__ void add(const Sums& more) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Joined joined =
          join(maxima[r], weights[r], more.maxima[r], more.weights[r]);
      maxima[r] = joined.maximum;
      weights[r] = joined.weight;
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          values[n][i] = join_values(joined, values[n][i], more.values[n][i]);
        }
      }
    }
  }
};

template <int kDim, int kKeyBits, int kValueBits>
__device__ __forceinline__ void attend(const Attend& args) {
  using Shared = Memory<kDim, kKeyBits, kValueBits>;
  constexpr int kTiles = kDim / 64;
  static_assert(sizeof(Shared) == attend_tiles_bytes(kDim, 0));
  extern __shared__ uint4 dynamic[];
  begin_kernel();
  Shared& memory = *reinterpret_cast<Shared*>(dynamic);
  float2* key_params = reinterpret_cast<float2*>(&memory + 1);
  float2* value_params = key_params;
  if constexpr (kKeyBits != kDense) {
    value_params += kDim / args.shape.key.parts[0].group * kSpanTokens;
  }
  const AttendItem item = args.items[blockIdx.x];
  const int group = args.n_heads / args.shape.n_kv_heads;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const Seen seen{
      seen_by(args, item, 0, group).first,
      seen_by(args, item, item.n_queries - 1, group).last};
  Sums<kTiles> all;
  for (int span = item.first_span; span < item.last_span; ++span) {
    const int begin = span * kSpanTokens;
    __syncthreads(); // the last span is read
    if (threadIdx.x < kSpanTokens / kBlockTokens) {
      const int block = span * (kSpanTokens / kBlockTokens) + threadIdx.x;
      if (block * kBlockTokens <= seen.last) {
        const unsigned long long id = args.blocks[item.first_block + block];
        memory.keys[threadIdx.x] = side_of(args.shape, id, blockIdx.y, true);
        memory.values[threadIdx.x] = side_of(args.shape, id, blockIdx.y, false);
      }
    }
    if (span == item.first_span) {
      read_queries(args, item, group, memory);
    }
    __syncthreads();
    const int own = begin + static_cast<int>(threadIdx.x);
    const bool is_seen = own >= seen.first && own <= seen.last;
    const int own_block = threadIdx.x / kBlockTokens;
    if constexpr (kKeyBits != kDense) {
      stage_params(args.shape.key, memory.keys[own_block], is_seen, key_params);
    }
    if constexpr (kValueBits != kDense) {
      stage_params(
          args.shape.value, memory.values[own_block], is_seen, value_params);
    }
    if constexpr (kKeyBits != kDense || kValueBits != kDense) {
      __syncthreads();
    }
    float scores[kTokenTiles][4] = {};
    const int position = begin + warp * kWarpTokens;
    if (position <= seen.last && position + kWarpTokens > seen.first) {
      score_tokens(args.shape.key, memory, key_params, position, seen, scores);
    }
    Values<kDim, kValueBits> ring;
#pragma unroll
    for (int c = 0; c < ring.kAhead; ++c) {
      ring.load(args.shape.value, memory, c, begin, seen);
    }
    Sums<kTiles> sums;
    weigh_tokens(
        args, item, group, position, memory, scores, sums.maxima, sums.weights);
    add_values(
        args.shape.value, memory, value_params, begin, seen, ring, sums.values);
    if (span == item.first_span) {
      all = sums;
    } else {
      all.add(sums);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int query = lane / 4 + 8 * r;
    if (query >= item.n_queries) {
      continue;
    }
    const int at = item.first_query + query;
    const long long head =
        static_cast<long long>(item.first_row + at / group) * args.n_heads +
        static_cast<int>(blockIdx.y) * group + at % group;
    float* to = args.partials + (head * args.slots + item.slot) * (kDim + 2);
    if (warp == 0 && lane % 4 == 0) {
      to[0] = all.maxima[r];
      to[1] = all.weights[r];
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        to[2 + warp * (kDim / kWarps) + (lane % 4 * 2 + i) * kTiles + n] =
            all.values[n][2 * r + i];
      }
    }
  }
  finish_tile(args, item, group, reinterpret_cast<float*>(dynamic));
}

} // namespace

// Blocks that share a multiprocessor's registers: one where heads are large.
#define OPTIQ_ATTEND(DIM, KEY, VALUE)                                       \
  extern "C" __global__ void __launch_bounds__(kThreads, DIM > 128 ? 1 : 2) \
      attend_tiles_##DIM##_##KEY##_##VALUE(                                 \
          const __grid_constant__ Attend args) {                            \
    attend<DIM, KEY, VALUE>(args);                                          \
  }

#define OPTIQ_ATTEND_WIDTHS(DIM) \
  OPTIQ_ATTEND(DIM, 16, 16)      \
  OPTIQ_ATTEND(DIM, 4, 4)        \
  OPTIQ_ATTEND(DIM, 8, 4)        \
  OPTIQ_ATTEND(DIM, 8, 8)

OPTIQ_ATTEND_WIDTHS(64)
OPTIQ_ATTEND_WIDTHS(128)
OPTIQ_ATTEND_WIDTHS(256)

} // namespace optiq::kernels::cuda
