// Keys and values in bfloat16, of attention_decode.cu.
#pragma once

#include "optiq/kernels/cuda/device/decode_queries.cuh"

namespace optiq::kernels::cuda {
namespace {

/** A warp's ring of tiles of 16 tokens: of every piece keys, then values. */
template <int kDim, int kTokens>
struct Ring {
  static constexpr int kTokenTiles = kTokens / 16;
  static constexpr int kStages = decode_stages(kDim);
  static constexpr int kPitch = row_pitch(2 * kDim);
  static_assert(2 * kTokenTiles % kStages == 0);
  char* tiles;

  /** Tile n of a piece on its way; zeros for tokens that nobody sees. */
  __device__ __forceinline__ void
  ask(const Piece& piece, const char* side, int n) const {
    constexpr int kRowCopies = kDim / 8;
    if (piece.is_seen) {
      const unsigned lane = lane_here();
      const int first = n % kTokenTiles * 16;
      const char* from = side + first * 2 * kDim + 16 * lane;
      char* to = tiles + n % kStages * 16 * kPitch;
#pragma unroll
      for (int i = 0; i < kRowCopies / 2; ++i) {
        const unsigned at = 32 * i + lane;
        const int token = at / kRowCopies;
        const int position = piece.position + first + token;
        const bool is_wanted = piece.is_whole ||
            (position >= piece.first_seen && position <= piece.last_seen);
        copy16(
            to + token * kPitch + at % kRowCopies * 16,
            from + 512 * i,
            is_wanted);
      }
    }
    end_copies();
  }
  /** Tile n, when it is there. */
  __device__ __forceinline__ const char* await(int n) const {
    await_copies<kStages - 1>();
    __syncwarp();
    return tiles + n % kStages * 16 * kPitch;
  }
};

/** Scores of a piece; what it asks for with ask_next(n) may take the place of
 * tile n. */
template <int kDim, int kTiles, int kTokens, int kWarps, class F>
__device__ __forceinline__ void score_dense(
    const Ring<kDim, kTokens>& ring,
    const Shared<kDim, kTiles, kWarps>& shared,
    Scores<kTiles, kTokens>& scores,
    const F& ask_next) {
  const int lane = threadIdx.x % 32;
  const int own = lane % 16 * ring.kPitch + lane / 16 * 16;
#pragma unroll
  for (int i = 0; i < ring.kTokenTiles; ++i) {
    const char* rows = ring.await(i) + own;
    float sums[kTiles][4] = {};
#pragma unroll 4
    for (int chunk = 0; chunk < kDim / 32; ++chunk) {
      std::uint32_t a[2][4];
      load_matrices(a[0], rows + chunk * 64);
      load_matrices(a[1], rows + chunk * 64 + 32);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint4 b = shared.operands[tile][chunk][lane];
        float(&c)[4] = sums[tile];
        mma_bf16(c, a[0][0], a[0][1], a[0][2], a[0][3], b.x, b.y);
        mma_bf16(c, a[1][0], a[1][1], a[1][2], a[1][3], b.z, b.w);
      }
    }
    __syncwarp(); // the tile is read
    ask_next(i);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      scores.at[i][tile][0] = __fadd_rn(sums[tile][0], sums[tile][1]);
      scores.at[i][tile][1] = __fadd_rn(sums[tile][2], sums[tile][3]);
    }
  }
}

template <int kDim, int kTiles, int kTokens, class F>
__device__ __forceinline__ void sum_dense(
    const Ring<kDim, kTokens>& ring,
    const Scores<kTiles, kTokens>& weights,
    const Running<kTiles>& running,
    float* to,
    const F& ask_next) {
  const int lane = threadIdx.x % 32;
  const int own = (lane % 8 + lane / 16 * 8) * ring.kPitch + lane / 8 % 2 * 16;
  float sums[kDim / 16][kTiles][4] = {};
#pragma unroll
  for (int i = 0; i < ring.kTokenTiles; ++i) {
    const char* rows = ring.await(ring.kTokenTiles + i) + own;
    std::uint32_t b[kTiles][2];
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      b[tile][0] = transpose(two_digits<true>(weights.at[i][tile][0]));
      b[tile][1] = transpose(two_digits<true>(weights.at[i][tile][1]));
    }
#pragma unroll
    for (int m = 0; m < kDim / 16; ++m) {
      std::uint32_t a[4];
      load_transposed(a, rows + m * 32);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        mma_bf16(sums[m][tile], a[0], a[1], a[2], a[3], b[tile][0], b[tile][1]);
      }
    }
    __syncwarp(); // the tile is read
    ask_next(ring.kTokenTiles + i);
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    float* y = to + (4 * tile + lane % 4) * (kDim + 8) + lane / 4;
#pragma unroll
    for (int m = 0; m < kDim / 16; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* c = sums[m][tile] + 2 * half;
        const float value[1] = {__fadd_rn(c[0], c[1])};
        add_to(
            value,
            running.has_any,
            running.factors[tile],
            y + 16 * m + 8 * half);
      }
    }
  }
}

template <int kDim, int kTiles, int kTokens>
struct DensePieces {
  const Work& work;
  Ring<kDim, kTokens> ring;
  float* sums;

  __device__ __forceinline__ DensePieces(const Work& work, char* memory)
      : work(work),
        ring{memory},
        sums(reinterpret_cast<float*>(memory + work.args.memory.sums)) {}

  __device__ __forceinline__ void
  ask(const Piece& piece, unsigned long long block, int n) const {
    const char* side =
        side_of(work.args.shape, block, blockIdx.y, n < ring.kTokenTiles);
    ring.ask(piece, side + piece.position % kBlockTokens * 2 * kDim, n);
  }
  __device__ __forceinline__ void begin(
      const Piece& piece,
      unsigned long long block) const {
#pragma unroll
    for (int n = 0; n < ring.kStages; ++n) {
      ask(piece, block, n);
    }
  }
  /** What was asked for first is there, of this lane. */
  __device__ __forceinline__ void await_first() const {
    await_copies<Ring<kDim, kTokens>::kStages - 1>();
  }
  template <int kWarps>
  __device__ __forceinline__ void attend(
      const Piece& piece,
      unsigned long long block,
      const Piece& next,
      unsigned long long next_block,
      const Shared<kDim, kTiles, kWarps>& shared,
      Running<kTiles>& running) const {
    const auto ask_next = [&](int n) {
      const int at = n + ring.kStages;
      if (at < 2 * ring.kTokenTiles) {
        ask(piece, block, at);
      } else {
        ask(next, next_block, at - 2 * ring.kTokenTiles);
      }
    };
    Scores<kTiles, kTokens> scores;
    score_dense(ring, shared, scores, ask_next);
    limit_scores(work, piece, scores);
    weigh(scores, running);
    sum_dense(ring, scores, running, sums, ask_next);
  }
};

} // namespace
} // namespace optiq::kernels::cuda
