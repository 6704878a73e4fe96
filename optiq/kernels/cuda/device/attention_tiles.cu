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
#include "optiq/kernels/cuda/device/attention_scores.cuh"

namespace optiq::kernels::cuda {
namespace {

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
    if (position + chunk * kChunkTokens > seen.last) {
      return; // nobody multiplies it
    }
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

/** Digits of the weights of a lane's two queries and four tokens, times their
 * scales where there are any: operands A of half a chunk. */
template <int kDim, int kKeyBits, int kValueBits>
struct WeightDigits {
  std::uint32_t a[kDigits][4] = {};

  /** Dense: as they lie there. */
  __device__ __forceinline__ void read(
      const Memory<kDim, kKeyBits, kValueBits>& memory,
      int first) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int digit = 0; digit < kDigits; ++digit) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const uint2 v = *reinterpret_cast<const uint2*>(
            &memory.digits[digit][lane / 4 + 8 * r][first]);
        a[digit][r] = v.x;
        a[digit][2 + r] = v.y;
      }
    }
  }
  /** Codes: made of weights, whose tokens' biases add up. */
  __device__ __forceinline__ void make(
      const Memory<kDim, kKeyBits, kValueBits>& memory,
      const float2* params,
      int first,
      bool has_second, // query of the lane
      float (&biases)[2]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (r == 1 && !has_second) {
        break; // its sums are not wanted
      }
      const float4 v = *reinterpret_cast<const float4*>(
          &memory.weights[lane / 4 + 8 * r][first]);
      float p[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float2 param = params[first + k];
        biases[r] = fmaf(p[k], param.y, biases[r]);
        p[k] *= param.x;
      }
#pragma unroll
      for (int digit = 0; digit < kDigits; ++digit) {
        a[digit][r] = next_digits(p[0], p[1]);
        a[digit][2 + r] = next_digits(p[2], p[3]);
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
    bool has_second,
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
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int k = 4 * half;
      WeightDigits<kDim, kKeyBits, kValueBits> weights;
      if constexpr (kValueBits == kDense) {
        weights.read(memory, first + k);
      } else {
        weights.make(memory, params, first + k, has_second, biases);
      }
      std::uint32_t b[Ring::kTiles][2];
#pragma unroll
      for (int n = 0; n < Ring::kTiles; ++n) {
        b[n][0] = Few::pair(tokens[k], tokens[k + 1], n);
        b[n][1] = Few::pair(tokens[k + 2], tokens[k + 3], n);
      }
#pragma unroll
      for (int digit = 0; digit < kDigits; ++digit) {
        const std::uint32_t(&a)[4] = weights.a[digit];
#pragma unroll
        for (int n = 0; n < Ring::kTiles; ++n) {
          mma_bf16(values[n], a[0], a[1], a[2], a[3], b[n][0], b[n][1]);
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

/** What a block has attended to, for another block to join, or where it is all
 * that there is, as results. */
template <int kDim>
__device__ __forceinline__ void write_sums(
    const Attend& args,
    const AttendItem& item,
    int group,
    const Sums<kDim / 64>& all) {
  constexpr int kTiles = kDim / 64;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int query = lane / 4 + 8 * r;
    if (query >= item.n_queries) {
      continue;
    }
    const long long head = head_of(args, item, group, query);
    float* to = args.partials + (head * args.slots + item.slot) * (kDim + 2);
    if (item.n_slots > 1 && warp == 0 && lane % 4 == 0) {
      to[0] = all.maxima[r];
      to[1] = all.weights[r];
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int channel =
            warp * (kDim / kWarps) + (lane % 4 * 2 + i) * kTiles + n;
        const float value = all.values[n][2 * r + i];
        if (item.n_slots > 1) {
          to[2 + channel] = value;
        } else {
          args.y[head * kDim + channel] =
              gated(args, head, channel, value / all.weights[r]);
        }
      }
    }
  }
}

/** Scales and biases of a span's tokens, where there are any. */
template <int kDim, int kKeyBits, int kValueBits>
__device__ __forceinline__ void stage_span(
    const KvShape& shape,
    const Memory<kDim, kKeyBits, kValueBits>& memory,
    int begin,
    Seen seen,
    float2* key_params,
    float2* value_params) {
  if constexpr (kKeyBits != kDense) {
    static_assert(kValueBits != kDense);
    const int own = begin + static_cast<int>(threadIdx.x);
    const bool is_seen = own >= seen.first && own <= seen.last;
    const int block = threadIdx.x / kBlockTokens;
    for (int first = 0; first < kMaxKvGroups; first += TokenParams::kAtOnce) {
      TokenParams keys;
      TokenParams values;
      keys.load(shape.key, memory.keys[block], is_seen, first);
      values.load(shape.value, memory.values[block], is_seen, first);
      keys.keep(shape.key, first, key_params);
      values.keep(shape.value, first, value_params);
    }
    __syncthreads();
  }
}

template <int kDim, int kKeyBits, int kValueBits>
__device__ __forceinline__ void attend(const Attend& args) {
  using Shared = Memory<kDim, kKeyBits, kValueBits>;
  constexpr int kTiles = kDim / 64;
  static_assert(sizeof(Shared) == attend_tiles_bytes(kDim, 0));
  extern __shared__ uint4 dynamic[];
  begin_kernel();
  Shared& memory = *reinterpret_cast<Shared*>(dynamic);
  const AttendItem item = args.items[blockIdx.x];
  float2* key_params = reinterpret_cast<float2*>(&memory + 1);
  float2* value_params = key_params;
  if constexpr (kKeyBits != kDense) {
    value_params += kDim / args.shape.key.parts[0].group * kSpanTokens;
  }
  const int group = args.n_heads / args.shape.n_kv_heads;
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
      const int query = threadIdx.x / 16;
      const float* q = args.q + head_of(args, item, group, query) * kDim;
      read_queries(args, item, q, memory);
    }
    __syncthreads();
    stage_span(args.shape, memory, begin, seen, key_params, value_params);
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
        args.shape.value,
        memory,
        value_params,
        begin,
        seen,
        item.n_queries > 8,
        ring,
        sums.values);
    if (span == item.first_span) {
      all = sums;
    } else {
      all.add(sums);
    }
  }
  write_sums<kDim>(args, item, group, all);
  if (item.n_slots > 1) {
    finish_tile(args, item, group, reinterpret_cast<float*>(dynamic));
  }
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
