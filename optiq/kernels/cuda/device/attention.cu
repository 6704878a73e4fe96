// Attention over the blocks of a cache, in spans at absolute multiples of 256
// tokens, each in chunks of 32. A block of threads has up to 16 queries that
// share a kv head; keys, then values, of a chunk lie in shared memory as
// float32. Within a span weights are exp(s - m) with the largest score m so
// far; spans are added in order, by the same arithmetic whoever adds them.
// So a query's bits depend on its own tokens alone, not on the tile it is in,
// nor on whether spans were shared out.
#include "optiq/kernels/cuda/device/attention.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kPad = 4; // floats behind a token's channels: no bank conflicts

/** What a tile of kQueries queries keeps in shared memory. */
template <int kQueries>
struct Tile {
  float* queries; // [kQueries][head_dim]
  float* tokens; // [32][head_dim + kPad]
  float weights[kQueries][kChunkTokens];
  float factors[kQueries]; // of the sums so far
  float maxima[kQueries]; // of the span so far
  float sums[kQueries];
  Centroids key_table;
  Centroids value_table;
};

/** Four channels of a dense side. */
__device__ __forceinline__ float4
dense_channels(const KvSide& side, const char* from, int token, int channel) {
  const long long at = static_cast<long long>(token) * side.head_dim + channel;
  if (!side.is_half) {
    return __ldg(reinterpret_cast<const float4*>(from) + at / 4);
  }
  const uint2 v = __ldg(reinterpret_cast<const uint2*>(from) + at / 4);
  return make_float4(
      bf16_bits(v.x & 0xffff),
      bf16_bits(v.x >> 16),
      bf16_bits(v.y & 0xffff),
      bf16_bits(v.y >> 16));
}

/** 32 tokens from `first` on of a dense side, in two halves: a thread's loads
 * of one are on their way together. */
template <int kStrips>
__device__ __forceinline__ void read_dense_chunk(
    const KvSide& side,
    const char* from,
    int first,
    Seen seen,
    float* to) {
  constexpr int kTokens = kChunkTokens / kWarps / 2;
  const int head_dim = side.head_dim;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float4 channels[kTokens][kStrips];
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      const int token = (half * kTokens + i) * kWarps + threadIdx.x / 32;
      const int position = first + token;
      const bool is_seen = position >= seen.first && position <= seen.last;
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
        const int channel = (s * 32 + threadIdx.x % 32) * 4;
        channels[i][s] = is_seen && channel < head_dim
            ? dense_channels(side, from, position % kBlockTokens, channel)
            : make_float4(0.f, 0.f, 0.f, 0.f);
      }
    }
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      const int token = (half * kTokens + i) * kWarps + threadIdx.x / 32;
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
        const int channel = (s * 32 + threadIdx.x % 32) * 4;
        if (channel < head_dim) {
          *reinterpret_cast<float4*>(to + token * (head_dim + kPad) + channel) =
              channels[i][s];
        }
      }
    }
  }
}

/** 32 tokens from `first` on of keys or values into shared memory; zeros
 * outside of [seen.first, seen.last]. */
template <int kStrips>
__device__ __forceinline__ void read_chunk(
    const Attend& args,
    const AttendItem& item,
    int first,
    Seen seen,
    bool is_key,
    const Centroids& table,
    float* to) {
  const KvSide& side = is_key ? args.shape.key : args.shape.value;
  const int head_dim = side.head_dim;
  const char* from = side_of(
      args.shape,
      args.blocks[item.first_block + first / kBlockTokens],
      blockIdx.y,
      is_key);
  if (side.code == KvCode::Dense) {
    read_dense_chunk<kStrips>(side, from, first, seen, to);
    return;
  }
  for (int i = threadIdx.x / 32; i < kChunkTokens; i += kWarps) {
    float* row = to + i * (head_dim + kPad);
    const int position = first + i;
    if (position >= seen.first && position <= seen.last) {
      read_packed(side, table, from, position % kBlockTokens, row);
    } else {
      for (int d = threadIdx.x % 32; d < head_dim; d += 32) {
        row[d] = 0.f;
      }
    }
  }
}

/** Weights of a chunk: a warp has every fourth query, its lanes the tokens. */
template <int kQueries>
__device__ __forceinline__ void weigh_chunk(
    const Attend& args,
    const AttendItem& item,
    int first,
    int group,
    Tile<kQueries>& tile) {
  const int head_dim = args.shape.key.head_dim;
  const int lane = threadIdx.x % 32;
  const auto* token =
      reinterpret_cast<const float4*>(tile.tokens + lane * (head_dim + kPad));
  float scores[kQueries / kWarps] = {};
  for (int d = 0; d < head_dim / 4; ++d) {
    const float4 k = token[d];
#pragma unroll
    for (int i = 0; i < kQueries / kWarps; ++i) {
      const int query = i * kWarps + threadIdx.x / 32;
      const float4 q =
          reinterpret_cast<const float4*>(tile.queries + query * head_dim)[d];
      scores[i] = fmaf(
          q.x, k.x, fmaf(q.y, k.y, fmaf(q.z, k.z, fmaf(q.w, k.w, scores[i]))));
    }
  }
#pragma unroll
  for (int i = 0; i < kQueries / kWarps; ++i) {
    const int query = i * kWarps + threadIdx.x / 32;
    if (query >= item.n_queries) {
      continue;
    }
    const Seen seen = seen_by(args, item, query, group);
    const int position = first + lane;
    float score = scores[i];
    if (args.softcap > 0.f) {
      score = args.softcap * tanhf(score / args.softcap);
    }
    const bool is_seen = position >= seen.first && position <= seen.last;
    score = is_seen ? score : -INFINITY;
    const float before = tile.maxima[query];
    const float maximum = fmaxf(before, warp_max(score));
    const float weight = is_seen ? expf(score - maximum) : 0.f;
    const float factor = before == -INFINITY ? 0.f : expf(before - maximum);
    const float sum = warp_sum(weight);
    tile.weights[query][lane] = weight;
    __syncwarp();
    if (lane == 0 && maximum != -INFINITY) {
      tile.maxima[query] = maximum;
      tile.sums[query] = __fmaf_rn(tile.sums[query], factor, sum);
    }
    if (lane == 0) {
      tile.factors[query] = maximum == -INFINITY ? 1.f : factor;
    }
  }
}

/** values = values * factor + weights times a chunk's values. A thread has
 * channels threadIdx.x + 128 i of every query. */
template <int kQueries, int kStrips>
__device__ __forceinline__ void add_chunk(
    const Tile<kQueries>& tile,
    int head_dim,
    float (&values)[kQueries][kStrips]) {
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
#pragma unroll
    for (int s = 0; s < kStrips; ++s) {
      values[q][s] *= tile.factors[q];
    }
  }
  for (int i = 0; i < kChunkTokens; i += 4) {
    float v[4][kStrips];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
        const int channel = threadIdx.x + s * kThreads;
        v[j][s] = channel < head_dim
            ? tile.tokens[(i + j) * (head_dim + kPad) + channel]
            : 0.f;
      }
    }
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      const float4 w = *reinterpret_cast<const float4*>(&tile.weights[q][i]);
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
        values[q][s] = fmaf(
            w.w,
            v[3][s],
            fmaf(
                w.z,
                v[2][s],
                fmaf(w.y, v[1][s], fmaf(w.x, v[0][s], values[q][s]))));
      }
    }
  }
}

/** One span: its sums in `values`, tile.maxima and tile.sums. */
template <int kQueries, int kStrips>
__device__ __forceinline__ void attend_span(
    const Attend& args,
    const AttendItem& item,
    int span,
    int group,
    Tile<kQueries>& tile,
    float (&values)[kQueries][kStrips]) {
  const int head_dim = args.shape.key.head_dim;
  const Seen seen{
      seen_by(args, item, 0, group).first,
      seen_by(args, item, item.n_queries - 1, group).last};
  if (threadIdx.x < kQueries) {
    tile.maxima[threadIdx.x] = -INFINITY;
    tile.sums[threadIdx.x] = 0.f;
    tile.factors[threadIdx.x] = 1.f;
  }
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
#pragma unroll
    for (int s = 0; s < kStrips; ++s) {
      values[q][s] = 0.f;
    }
  }
  const int begin =
      max(span * kSpanTokens, seen.first / kChunkTokens * kChunkTokens);
  const int end = min((span + 1) * kSpanTokens, seen.last + 1);
  for (int first = begin; first < end; first += kChunkTokens) {
    __syncthreads();
    read_chunk<kStrips>(
        args, item, first, seen, true, tile.key_table, tile.tokens);
    __syncthreads();
    weigh_chunk(args, item, first, group, tile);
    __syncthreads();
    read_chunk<kStrips>(
        args, item, first, seen, false, tile.value_table, tile.tokens);
    __syncthreads();
    add_chunk(tile, head_dim, values);
  }
  __syncthreads();
}

template <int kQueries, int kStrips>
__device__ __forceinline__ void attend(const Attend& args) {
  extern __shared__ float4 dynamic[];
  __shared__ Tile<kQueries> tile;
  const AttendItem item = args.items[blockIdx.x];
  const int head_dim = args.shape.key.head_dim;
  const int group = args.n_heads / args.shape.n_kv_heads;
  const auto row_of_query = [&](int query) {
    return item.first_row + (item.first_query + query) / group;
  };
  const auto head_of_query = [&](int query) {
    return static_cast<int>(blockIdx.y) * group +
        (item.first_query + query) % group;
  };
  if (threadIdx.x == 0) {
    tile.queries = reinterpret_cast<float*>(dynamic);
    tile.tokens = tile.queries + kQueries * head_dim;
  }
  copy_centroids(args.shape.key, tile.key_table);
  copy_centroids(args.shape.value, tile.value_table);
  for (int i = threadIdx.x; i < kQueries * kChunkTokens; i += kThreads) {
    tile.weights[i / kChunkTokens][i % kChunkTokens] = 0.f;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kQueries * head_dim; i += kThreads) {
    const int query = i / head_dim;
    tile.queries[i] = query < item.n_queries
        ? args
              .q[(static_cast<long long>(row_of_query(query)) * args.n_heads +
                  head_of_query(query)) *
                     head_dim +
                 i % head_dim]
        : 0.f;
  }
  float all[kQueries][kStrips];
  float maxima[kQueries];
  float sums[kQueries];
  attend_span(args, item, item.first_span, group, tile, all);
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    maxima[q] = tile.maxima[q];
    sums[q] = tile.sums[q];
  }
  for (int span = item.first_span + 1; span < item.last_span; ++span) {
    __syncthreads();
    float values[kQueries][kStrips];
    attend_span(args, item, span, group, tile, values);
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      const Joined joined =
          join(maxima[q], sums[q], tile.maxima[q], tile.sums[q]);
      maxima[q] = joined.maximum;
      sums[q] = joined.weight;
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
        all[q][s] = join_values(joined, all[q][s], values[q][s]);
      }
    }
  }
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    if (q >= item.n_queries) {
      continue;
    }
    float* to = args.partials +
        ((static_cast<long long>(row_of_query(q)) * args.n_heads +
          head_of_query(q)) *
             args.slots +
         item.slot) *
            (head_dim + 2);
    if (threadIdx.x == 0) {
      to[0] = maxima[q];
      to[1] = sums[q];
    }
#pragma unroll
    for (int s = 0; s < kStrips; ++s) {
      const int channel = threadIdx.x + s * kThreads;
      if (channel < head_dim) {
        to[2 + channel] = all[q][s];
      }
    }
  }
  finish_tile(args, item, group, reinterpret_cast<float*>(dynamic));
}

} // namespace

#define OPTIQ_ATTEND(QUERIES, STRIPS)                                    \
  extern "C" __global__ void __launch_bounds__(kThreads)                 \
      attend_##QUERIES##_##STRIPS(const __grid_constant__ Attend args) { \
    begin_kernel();                                                      \
    attend<QUERIES, STRIPS>(args);                                       \
  }

OPTIQ_ATTEND(4, 1)
OPTIQ_ATTEND(4, 2)
OPTIQ_ATTEND(4, 4)
OPTIQ_ATTEND(16, 1)
OPTIQ_ATTEND(16, 2)
OPTIQ_ATTEND(16, 4)

} // namespace optiq::kernels::cuda
