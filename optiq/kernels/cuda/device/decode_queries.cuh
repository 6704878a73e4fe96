// Queries of attention_decode.cu: which they are, what they see, their numbers
// as digits, scores and weights.
#pragma once

#include "optiq/kernels/cuda/device/attention_codes.cuh"
#include "optiq/kernels/cuda/device/decode_join.cuh"

namespace optiq::kernels::cuda {
namespace {

/** What a block of threads shares; behind it every warp's memory. */
template <int kDim, int kTiles, int kWarps>
struct Shared {
  static constexpr int kQueries = 4 * kTiles;
  /** Operands B: of 32 channels each the lane's two pairs of registers. */
  uint4 operands[kTiles][kDim / 32][32];
  float factors[kQueries]; // back from the digits' size
  float maxima[kWarps][kQueries]; // of a span
  float weights[kWarps][kQueries];
};

/** What a piece is of, and who sees how much of it. */
struct Piece {
  int position; // of its first token
  int first_seen; // positions that any query sees
  int last_seen;
  bool is_seen; // any of it
  bool is_whole; // all of it, by every query
};

/** What a block of threads works on. */
struct Work {
  const Attend& args;
  const AttendItem& item;

  __device__ __forceinline__ int row_of(int query) const {
    return static_cast<int>(
        (item.first_query + query) * args.group_inverse >> 20);
  }
  /** Which of all rows' heads a query is. */
  __device__ __forceinline__ int head_of(int query) const {
    const int row = row_of(query);
    const int head = item.first_query + query - row * args.group;
    return (item.first_row + row) * args.n_heads +
        static_cast<int>(blockIdx.y) * args.group + head;
  }
  __device__ __forceinline__ Seen seen_by(int query) const {
    const int last = item.start + row_of(query);
    const int first =
        args.window == 0 || last < args.window ? 0 : last - args.window + 1;
    return {first, last};
  }
  /** Piece n of the warp. */
  template <int kTokens, int kPieces>
  __device__ __forceinline__ Piece piece_of(int span, int n) const {
    const int warps = static_cast<int>(blockDim.x) / 32;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int position = ((span * kPieces + n) * warps + warp) * kTokens;
    const int behind = position + kTokens - 1;
    const Seen first = seen_by(0);
    const Seen last = seen_by(item.n_queries - 1);
    return {
        position,
        first.first,
        last.last,
        position <= last.last && behind >= first.first,
        position >= last.first && behind <= first.last};
  }
};

/** Queries as operands on their way; zeros behind the last. */
template <int kDim, int kTiles, int kWarps>
__device__ __forceinline__ void ask_queries(
    const Work& work,
    Shared<kDim, kTiles, kWarps>& shared) {
  constexpr int kCopies = 8; // of a query's 32 channels
  constexpr int kChunks = kDim / 32;
  for (int i = threadIdx.x; i < 4 * kTiles * kChunks * kCopies;
       i += 32 * kWarps) {
    const int at = i % kCopies;
    const int chunk = i / kCopies % kChunks;
    const int query = i / kCopies / kChunks;
    const bool is_there = query < work.item.n_queries;
    const long long head = work.head_of(is_there ? query : 0);
    copy16(
        &shared.operands[query / 4][chunk][query % 4 * kCopies + at],
        work.args.q + head * kDim + chunk * 32 + at * 4,
        is_there);
  }
  if (threadIdx.x < 4 * kTiles) {
    const int query = threadIdx.x;
    shared.factors[query] = query < work.item.n_queries
        ? work.args.q_factors[work.head_of(query)]
        : 0.f;
  }
}

/** Neighbouring sums of a lane added to what it has in shared memory. */
template <int kCount>
__device__ __forceinline__ void add_to(
    const float (&values)[kCount],
    bool has_any,
    float factor, // of what is there
    float* to) {
  float sums[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    sums[i] = has_any ? fmaf(to[i], factor, values[i]) : values[i];
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    to[i] = sums[i];
  }
}

/** The lane, read anew: what follows from it is not kept through a loop, for
 * every width of codes there is. */
__device__ __forceinline__ unsigned lane_here() {
  unsigned lane;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

/** Of a warp's piece: of tile i tokens 16 i + lane / 4 and + 8, of the query
 * lane % 4 of every tile. */
template <int kTiles, int kTokens>
struct Scores {
  static constexpr int kTokenTiles = kTokens / 16;
  float at[kTokenTiles][kTiles][2];
};

/** What a warp knows of its queries, the lane of query lane % 4 of every tile:
 * the largest score and the sum of weights so far. */
template <int kTiles>
struct Running {
  float maxima[kTiles];
  float weights[kTiles];
  float factors[kTiles]; // of what was before the last piece
  bool has_any = false;

  __device__ __forceinline__ Running() {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      maxima[tile] = -INFINITY;
      weights[tile] = 0.f;
    }
  }
};

/** -inf for what is not seen, and caps. */
template <int kTiles, int kTokens>
__device__ __forceinline__ void limit_scores(
    const Work& work,
    const Piece& piece,
    Scores<kTiles, kTokens>& scores) {
  using Own = Scores<kTiles, kTokens>;
  const int lane = threadIdx.x % 32;
  const float cap = work.args.softcap;
  if (cap > 0.f) {
    const float inverse = 1.f / cap;
#pragma unroll
    for (int i = 0; i < Own::kTokenTiles; ++i) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float& score = scores.at[i][tile][half];
          score = __fmul_rn(cap, tanhf(__fmul_rn(score, inverse)));
        }
      }
    }
  }
  if (piece.is_whole) {
    return;
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const Seen seen = work.seen_by(4 * tile + lane % 4);
#pragma unroll
    for (int i = 0; i < Own::kTokenTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = piece.position + 16 * i + 8 * half + lane / 4;
        if (at < seen.first || at > seen.last) {
          scores.at[i][tile][half] = -INFINITY;
        }
      }
    }
  }
}

/** Scores into weights, which are added to the running ones. */
template <int kTiles, int kTokens>
__device__ __forceinline__ void weigh(
    Scores<kTiles, kTokens>& scores,
    Running<kTiles>& running) {
  using Own = Scores<kTiles, kTokens>;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    float maximum = running.maxima[tile];
#pragma unroll
    for (int i = 0; i < Own::kTokenTiles; ++i) {
      maximum =
          fmaxf(maximum, fmaxf(scores.at[i][tile][0], scores.at[i][tile][1]));
    }
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
      maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, step));
    }
    const float least = maximum == -INFINITY ? 0.f : maximum;
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < Own::kTokenTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float& score = scores.at[i][tile][half];
        score = __expf(__fsub_rn(score, least));
        sum += score;
      }
    }
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, step);
    }
    running.factors[tile] = __expf(__fsub_rn(running.maxima[tile], least));
    running.weights[tile] =
        fmaf(running.weights[tile], running.factors[tile], sum);
    running.maxima[tile] = maximum;
  }
}

} // namespace
} // namespace optiq::kernels::cuda
