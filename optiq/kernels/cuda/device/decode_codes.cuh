// Keys and values in codes: from a block of the cache to scores, and from
// weights to sums (attention_decode.cu has the formulas).
#pragma once

#include "optiq/kernels/cuda/device/decode_queries.cuh"

namespace optiq::kernels::cuda {
namespace {

/** Scales and biases of a piece's tokens in shared memory, [kTokens][groups] of
 * bfloat16, or turbo's norms in float16. */
template <bool kIsTurbo, int kTokens>
struct Params {
  const std::uint16_t* scales;
  int groups;
  float unit; // turbo: what norms are multiplied by

  __device__ __forceinline__ Params(const KvSide& side, const char* at) {
    groups = kIsTurbo ? 1 : side.parts[0].groups;
    scales = reinterpret_cast<const std::uint16_t*>(at);
    unit = rsqrtf(static_cast<float>(side.head_dim));
  }
  __device__ __forceinline__ float2 at(int token, int group) const {
    if constexpr (kIsTurbo) {
      return make_float2(__fmul_rn(half_bits(scales[token]), unit), 0.f);
    } else {
      const int i = token * groups + group;
      return make_float2(
          bf16_bits(scales[i]), bf16_bits(scales[i + kTokens * groups]));
    }
  }
};

/** `bytes`, a multiple of 16, on their way. */
__device__ __forceinline__ void
copy_bytes(char* to, const char* from, int bytes) {
#pragma unroll 1
  for (int at = static_cast<int>(lane_here()) * 16; at < bytes; at += 512) {
    copy16(to + at, from + at);
  }
}

/** Rows of tokens on their way. */
template <int kRowBytes, int kTokens>
__device__ __forceinline__ void copy_rows(char* to, const char* from) {
  constexpr int kPitch = row_pitch(kRowBytes);
  constexpr int kCopies = kTokens * kRowBytes / 16;
  constexpr int kRowCopies = kPitch == kRowBytes ? kCopies : kRowBytes / 16;
  static_assert(kRowCopies > 0);
  static_assert(kCopies % 32 == 0);
  const unsigned lane = lane_here();
  from += 16 * lane;
  if constexpr (32 % kRowCopies == 0) {
    to += lane / kRowCopies * kPitch + lane % kRowCopies * 16;
  }
#pragma unroll
  for (int i = 0; i < kCopies / 32; ++i) {
    if constexpr (32 % kRowCopies == 0) {
      copy16(to + 32 / kRowCopies * kPitch * i, from + 512 * i);
    } else {
      const unsigned at = 32 * i + lane;
      copy16(
          to + at / kRowCopies * kPitch + at % kRowCopies * 16, from + 512 * i);
    }
  }
}

/** Of a side of a block the tokens from `first` on, on their way: rows, and
 * what they are to be scaled by. */
template <int kDim, int kTokens>
__device__ __forceinline__ void
copy_side(const KvSide& side, char* to, const char* block, int first) {
  const KvPart& part = side.parts[0];
  const char* rows = block + part.words_at + first * 4 * part.words;
  char* params = to + kTokens * row_pitch(4 * part.words);
  if (side.code == KvCode::Turbo) {
    copy_bytes(params, block + 2 * first, 2 * kTokens);
  } else {
    const int groups = part.groups;
    const int bytes = 2 * kTokens * groups;
    copy_bytes(params, block + part.scales_at + 2 * first * groups, bytes);
    copy_bytes(
        params + bytes, block + part.biases_at + 2 * first * groups, bytes);
  }
  switch (part.bits) {
    case 2:
      return copy_rows<kDim / 4, kTokens>(to, rows);
    case 3:
      return copy_rows<kDim * 3 / 8, kTokens>(to, rows);
    case 4:
      return copy_rows<kDim / 2, kTokens>(to, rows);
    case 5:
      return copy_rows<kDim * 5 / 8, kTokens>(to, rows);
    case 6:
      return copy_rows<kDim * 3 / 4, kTokens>(to, rows);
    default:
      return copy_rows<kDim, kTokens>(to, rows);
  }
}

/** Sums of a group of keys' channels: of products with codes, of tile i tokens
 * 16 i + lane / 4 and + 8, and of queries alone, in both digits' columns. */
template <int kTiles, int kTokens, class Codes>
struct GroupScores {
  using Own = Scores<kTiles, kTokens>;
  float sums[Own::kTokenTiles][kTiles][4] = {};
  float offsets[kTiles][4] = {}; // what 1024 adds, less than nothing
  float queries[kTiles][4] = {}; // what biases are multiplied by

  __device__ __forceinline__ void add_queries(const uint4 (&b)[kTiles]) {
    constexpr std::uint32_t kLess = 0xe400e400u; // -1024, twice
    constexpr std::uint32_t kOne[4] = {
        half_power(code_place(Codes::kBits, 0)),
        half_power(code_place(Codes::kBits, 1)),
        half_power(code_place(Codes::kBits, 2)),
        half_power(code_place(Codes::kBits, 3))};
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      float(&less)[4] = offsets[tile];
      float(&one)[4] = queries[tile];
      mma_f16(less, kLess, kLess, kLess, kLess, b[tile].x, b[tile].y);
      mma_f16(less, kLess, kLess, kLess, kLess, b[tile].z, b[tile].w);
      mma_f16(one, kOne[0], kOne[0], kOne[1], kOne[1], b[tile].x, b[tile].y);
      mma_f16(one, kOne[2], kOne[2], kOne[3], kOne[3], b[tile].z, b[tile].w);
    }
  }
  /** 32 channels; `rows` begins with those of token lane / 4. */
  template <int kPitch>
  __device__ __forceinline__ void
  add(const Codes& codes, const char* rows, int t, const uint4 (&b)[kTiles]) {
    if constexpr (!Codes::kIsTurbo) {
      add_queries(b);
    }
#pragma unroll
    for (int i = 0; i < Own::kTokenTiles; ++i) {
      std::uint32_t low[4];
      std::uint32_t high[4];
      EightCodes<Codes::kBits> x;
      x.load(rows + 16 * i * kPitch, t);
      pairs_of_token(codes, x, low);
      x.load(rows + (16 * i + 8) * kPitch, t);
      pairs_of_token(codes, x, high);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        float(&c)[4] = sums[i][tile];
        mma_f16(c, low[0], high[0], low[1], high[1], b[tile].x, b[tile].y);
        mma_f16(c, low[2], high[2], low[3], high[3], b[tile].z, b[tile].w);
      }
    }
  }
  /** Scaled, to scores. */
  __device__ __forceinline__ void add_to(
      const Params<Codes::kIsTurbo, kTokens>& params,
      int group,
      Own& scores) const {
#pragma unroll
    for (int i = 0; i < Own::kTokenTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 param = params.at(
            16 * i + 8 * half + static_cast<int>(threadIdx.x) % 32 / 4, group);
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          const float* c = sums[i][tile] + 2 * half;
          const float* less = offsets[tile];
          float& score = scores.at[i][tile][half];
          if constexpr (Codes::kIsTurbo) {
            score = fmaf(param.x, __fadd_rn(c[0], c[1]), score);
          } else {
            const float sum =
                __fadd_rn(__fadd_rn(c[0], less[0]), __fadd_rn(c[1], less[1]));
            const float one = __fadd_rn(queries[tile][0], queries[tile][1]);
            score = fmaf(param.y, one, fmaf(param.x, sum, score));
          }
        }
      }
    }
  }
};

template <int kDim, int kTiles, int kTokens, int kWarps, class Codes>
__device__ __forceinline__ void score_codes(
    const Codes& codes,
    const KvSide& side,
    const char* rows,
    const Shared<kDim, kTiles, kWarps>& shared,
    Scores<kTiles, kTokens>& scores) {
  using Own = Scores<kTiles, kTokens>;
  constexpr int kPitch = row_pitch(kDim * Codes::kBits / 8);
  const Params<Codes::kIsTurbo, kTokens> params(side, rows + kTokens * kPitch);
  const unsigned lane = lane_here();
  const int t = lane % 4;
  const char* from = rows + lane / 4 * kPitch;
  int chunk = 0;
#pragma unroll 1
  for (int group = 0; group < params.groups; ++group) {
    GroupScores<kTiles, kTokens, Codes> sums;
#pragma unroll 1
    for (; chunk * params.groups < (group + 1) * (kDim / 32); ++chunk) {
      uint4 b[kTiles];
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        b[tile] = shared.operands[tile][chunk][lane];
      }
      sums.template add<kPitch>(codes, from, t, b);
      from += 4 * Codes::kBits;
    }
    sums.add_to(params, group, scores);
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const float factor = shared.factors[4 * tile + t];
#pragma unroll
    for (int i = 0; i < Own::kTokenTiles; ++i) {
      scores.at[i][tile][0] = __fmul_rn(scores.at[i][tile][0], factor);
      scores.at[i][tile][1] = __fmul_rn(scores.at[i][tile][1], factor);
    }
  }
}

/** Weights of a group's values as operands B: of tile i tokens 16 i + lane % 4
 * * 2, + 1, + 8 and + 9, of the digit lane / 4 of every tile. Of the lane's own
 * queries what sums are multiplied by, what they begin with, and biases. */
template <int kTiles, int kTokens>
struct GroupWeights {
  using Own = Scores<kTiles, kTokens>;
  static constexpr int kTokenTiles = Own::kTokenTiles;
  std::uint32_t operands[kTokenTiles][kTiles][2];
  float factors[kTiles];
  float offsets[kTiles][2]; // of both digits
  float biases[kTiles];

  template <bool kIsTurbo>
  __device__ __forceinline__ void make(
      const Params<kIsTurbo, kTokens>& params,
      int group,
      bool is_whole,
      const Own& weights) {
    float2 values[kTokenTiles][2];
#pragma unroll
    for (int i = 0; i < kTokenTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        values[i][half] = params.at(
            16 * i + 8 * half + static_cast<int>(threadIdx.x) % 32 / 4, group);
      }
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      float x[kTokenTiles][2];
      float bias = scale(values, weights, tile, x);
      if (!is_whole) {
        bias = leave_out_unseen(values, weights, tile, x);
      }
      float largest = 0.f;
#pragma unroll
      for (int i = 0; i < kTokenTiles; ++i) {
        largest = fmaxf(largest, fmaxf(fabsf(x[i][0]), fabsf(x[i][1])));
      }
#pragma unroll
      for (int step = 4; step < 32; step *= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, step));
        if constexpr (!kIsTurbo) {
          bias += __shfl_xor_sync(kAllLanes, bias, step);
        }
      }
      biases[tile] = bias;
      place<kIsTurbo>(x, factor_below_half(largest), tile);
    }
  }

 private:
  /** Weights times scales, and their sum with biases. */
  static __device__ __forceinline__ float scale(
      const float2 (&values)[kTokenTiles][2],
      const Own& weights,
      int tile,
      float (&x)[kTokenTiles][2]) {
    float bias = 0.f;
#pragma unroll
    for (int i = 0; i < kTokenTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        x[i][half] = __fmul_rn(weights.at[i][tile][half], values[i][half].x);
        bias = fmaf(weights.at[i][tile][half], values[i][half].y, bias);
      }
    }
    return bias;
  }
  /** The same where what is not seen may hold anything. */
  static __device__ __forceinline__ float leave_out_unseen(
      const float2 (&values)[kTokenTiles][2],
      const Own& weights,
      int tile,
      float (&x)[kTokenTiles][2]) {
    float bias = 0.f;
#pragma unroll
    for (int i = 0; i < kTokenTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float p = weights.at[i][tile][half];
        x[i][half] = p == 0.f ? 0.f : x[i][half];
        bias = p == 0.f ? bias : fmaf(p, values[i][half].y, bias);
      }
    }
    return bias;
  }
  template <bool kIsTurbo>
  __device__ __forceinline__ void
  place(const float (&x)[kTokenTiles][2], float factor, int tile) {
    constexpr std::uint32_t kLess = 0xe400e400u; // -1024, twice
    float offset[4] = {};
#pragma unroll
    for (int i = 0; i < kTokenTiles; ++i) {
      std::uint32_t(&b)[2] = operands[i][tile];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        b[half] = transpose(two_digits<false>(__fmul_rn(x[i][half], factor)));
      }
      if constexpr (!kIsTurbo) {
        mma_f16(offset, kLess, kLess, kLess, kLess, b[0], b[1]);
      }
    }
    factors[tile] = inverse_of(factor);
    offsets[tile][0] = offset[0];
    offsets[tile][1] = offset[1];
  }
};

/** Sums of 64 channels' values, of which 8 are the lane's, of its queries,
 * added to what is in `to`, [queries][kDim + 8]. */
template <int kDim, int kTiles, int kTokens, class Codes>
__device__ __forceinline__ void add_codes(
    const Codes& codes,
    const char* rows,
    const GroupWeights<kTiles, kTokens>& weights,
    const Running<kTiles>& running,
    float* to) {
  constexpr int kTokenTiles = Scores<kTiles, kTokens>::kTokenTiles;
  constexpr int kPitch = row_pitch(kDim * Codes::kBits / 8);
  const unsigned lane = lane_here();
  const char* from = rows + lane % 4 * 2 * kPitch;
  float sums[4][kTiles][4];
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[n][tile][i] = weights.offsets[tile][i % 2];
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kTokenTiles; ++i) {
    std::uint32_t first[2][4];
    std::uint32_t second[2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      EightCodes<Codes::kBits> x;
      EightCodes<Codes::kBits> y;
      x.load(from + (16 * i + 8 * half) * kPitch, lane / 4);
      y.load(from + (16 * i + 8 * half + 1) * kPitch, lane / 4);
      pairs_of_tokens(codes, x, y, first[half], second[half]);
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        mma_f16(
            sums[n][tile],
            first[0][n],
            second[0][n],
            first[1][n],
            second[1][n],
            weights.operands[i][tile][0],
            weights.operands[i][tile][1]);
      }
    }
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    float y[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float* c = sums[i % 4][tile] + i / 4 * 2;
      const float factor = Codes::kIsTurbo
          ? weights.factors[tile]
          : __fmul_rn(
                weights.factors[tile], power(-code_place(Codes::kBits, i % 4)));
      y[i] = fmaf(__fadd_rn(c[0], c[1]), factor, weights.biases[tile]);
    }
    add_to(
        y,
        running.has_any,
        running.factors[tile],
        to + (4 * tile + lane % 4) * (kDim + 8) + lane / 4 * 8);
  }
}

/** Weighted sums of a piece's values added to `to`. */
template <int kDim, int kTiles, int kTokens>
__device__ __forceinline__ void sum_codes(
    const KvSide& side,
    const char* rows,
    bool is_whole,
    const Scores<kTiles, kTokens>& weights,
    const Running<kTiles>& running,
    float* to) {
  const bool is_turbo = side.code == KvCode::Turbo;
  const char* at = rows + kTokens * row_pitch(4 * side.parts[0].words);
  const int groups = is_turbo ? 1 : side.parts[0].groups;
  GroupWeights<kTiles, kTokens> own;
#pragma unroll 1
  for (int unit = 0; unit < kDim / 64; ++unit) {
    if (unit * groups % (kDim / 64) == 0) {
      const int group = unit * groups / (kDim / 64);
      if (is_turbo) {
        own.template make<true>({side, at}, group, is_whole, weights);
      } else {
        own.template make<false>({side, at}, group, is_whole, weights);
      }
    }
    with_codes(side, [&](const auto& codes) {
      using Codes = std::remove_cvref_t<decltype(codes)>;
      add_codes<kDim>(
          codes, rows + unit * 8 * Codes::kBits, own, running, to + 64 * unit);
    });
  }
}

/** A warp's pieces of a span: asked for and attended to one after the other. */
template <int kDim, int kTiles, int kTokens>
struct CodedPieces {
  const Work& work;
  char* keys;
  char* values;
  float* sums;

  __device__ __forceinline__ CodedPieces(const Work& work, char* memory)
      : work(work),
        keys(memory),
        values(memory + work.args.memory.values),
        sums(reinterpret_cast<float*>(memory + work.args.memory.sums)) {}

  __device__ __forceinline__ void
  ask(const Piece& piece, unsigned long long block, bool is_key) const {
    if (piece.is_seen) {
      const KvShape& shape = work.args.shape;
      copy_side<kDim, kTokens>(
          is_key ? shape.key : shape.value,
          is_key ? keys : values,
          side_of(shape, block, blockIdx.y, is_key),
          piece.position % kBlockTokens);
    }
    end_copies();
  }
  __device__ __forceinline__ void begin(
      const Piece& piece,
      unsigned long long block) const {
    ask(piece, block, true);
    ask(piece, block, false);
  }
  /** What was asked for first is there, of this lane. */
  __device__ __forceinline__ void await_first() const {
    await_copies<1>();
  }
  template <int kWarps>
  __device__ __forceinline__ void attend(
      const Piece& piece,
      unsigned long long, // where it was asked for
      const Piece& next,
      unsigned long long next_block,
      const Shared<kDim, kTiles, kWarps>& shared,
      Running<kTiles>& running) const {
    const KvShape& shape = work.args.shape;
    Scores<kTiles, kTokens> scores = {};
    await_copies<1>();
    __syncwarp();
    with_codes(shape.key, [&](const auto& codes) {
      score_codes(codes, shape.key, keys, shared, scores);
    });
    __syncwarp(); // keys are read
    ask(next, next_block, true);
    limit_scores(work, piece, scores);
    weigh(scores, running);
    await_copies<1>();
    __syncwarp();
    sum_codes<kDim>(shape.value, values, piece.is_whole, scores, running, sums);
    __syncwarp(); // values are read
    ask(next, next_block, false);
  }
};

} // namespace
} // namespace optiq::kernels::cuda
