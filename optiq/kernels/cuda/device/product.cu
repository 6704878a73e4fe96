// Products on tensor cores. 16 rows of W are the A operand of
// mma.sync.m16n8k16 and 8 rows of x its B operand, so that up to 8 rows of x
// cost one pass over W:
//
//   y[t][o] = sum over groups: s (sum q x) + b (sum x)
//
// Codes enter as the exact bfloat16 numbers 128 + q, x as two or three bfloat16
// digits; sums are float32, and 128 sum(x) leaves with b. 8 bits are two planes
// of 4. Eight warps share the columns, warp w taking spans w, w + 8, ...; their
// sums are added in order. So the bits of a row do not depend on how many rows
// there are, and the larger tiles of many rows change no bit.
#include "optiq/kernels/cuda/device/common.cuh"
#include "optiq/kernels/cuda/packed_layout.h"

namespace optiq::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kDense = 16; // "bits" of bfloat16 weights

__device__ __forceinline__ void mma(
    float (&c)[4],
    std::uint32_t a0,
    std::uint32_t a1,
    std::uint32_t a2,
    std::uint32_t a3,
    std::uint32_t b0,
    std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/** Weights are read once: they need not push x out of the first cache. */
__device__ __forceinline__ uint4 stream4(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

__device__ __forceinline__ uint2 stream2(const void* p) {
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];"
               : "=r"(v.x), "=r"(v.y)
               : "l"(p));
  return v;
}

/** A lane's share of 16 rows and one span. */
template <int kBits>
struct Weights {
  std::uint32_t words[2][kBits];
  std::uint32_t params[4][2]; // of the groups that end with chunk i

  __device__ __forceinline__ void
  load(const MultiplyPart& part, int tile, int span, int spans, int lane) {
    const std::uint32_t* from =
        part.weight + words_before(tile, span, spans, lane, 0, kBits);
    std::uint32_t* flat = words[0];
    if constexpr (kBits % 2 == 0) {
#pragma unroll
      for (int i = 0; i < 2 * kBits; i += 4) {
        const uint4 v = stream4(from + i);
        flat[i] = v.x;
        flat[i + 1] = v.y;
        flat[i + 2] = v.z;
        flat[i + 3] = v.w;
      }
    } else {
#pragma unroll
      for (int i = 0; i < 2 * kBits; i += 2) {
        const uint2 v = stream2(from + i);
        flat[i] = v.x;
        flat[i + 1] = v.y;
      }
    }
    const int groups = spans * 4 / part.chunks_per_group;
#pragma unroll
    for (int chunk = 0; chunk < 4; ++chunk) {
      if ((chunk + 1) % part.chunks_per_group == 0) {
        const int group = (4 * span + chunk) / part.chunks_per_group;
        const std::uint32_t* at = part.params +
            (static_cast<std::int64_t>(tile) * groups + group) * kTileRows +
            lane / 4;
        params[chunk][0] = __ldg(at);
        params[chunk][1] = __ldg(at + 8);
      }
    }
  }

  template <int kWidth>
  static __device__ __forceinline__ std::uint32_t plane(
      const std::uint32_t* row,
      int pair) {
    constexpr int kPerWord = 16 / kWidth;
    constexpr std::uint32_t kMask = ((1u << kWidth) - 1) * 0x00010001u;
    return row[pair / kPerWord] >> (pair % kPerWord * kWidth) & kMask;
  }

  /** Codes 2 pair and 2 pair + 1 of a row as 128 + q in bfloat16; at 8 bits
   * those of one plane. */
  __device__ __forceinline__ std::uint32_t
  operand(int row, int pair, int of_plane) const {
    constexpr std::uint32_t kMagic = 0x43004300u;
    constexpr int kLow = low_bits(kBits);
    constexpr int kHigh = high_bits(kBits);
    if constexpr (kBits == 8) {
      return plane<4>(words[row] + 4 * of_plane, pair) | kMagic;
    } else if constexpr (kHigh == 0) {
      return plane<kLow>(words[row], pair) | kMagic;
    } else {
      return plane<kLow>(words[row], pair) |
          plane<kHigh>(words[row] + kLow, pair) << kLow | kMagic;
    }
  }
};

template <>
struct Weights<kDense> {
  uint4 words[2][4];

  __device__ __forceinline__ void
  load(const MultiplyPart& part, int in, int tile, int span, int lane) {
    const auto* weight = reinterpret_cast<const std::uint16_t*>(part.weight);
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int from = tile * kTileRows + row_of(lane, row);
#pragma unroll
      for (int chunk = 0; chunk < 4; ++chunk) {
        const int column = span * kSpanColumns + column_of(lane, 8 * chunk);
        words[row][chunk] = from < part.out && column < in
            ? stream4(weight + static_cast<std::int64_t>(from) * in + column)
            : make_uint4(0, 0, 0, 0);
      }
    }
  }

  __device__ __forceinline__ std::uint32_t operand(int row, int pair, int)
      const {
    const uint4& v = words[row][pair / 4];
    const int i = pair % 4;
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
  }
};

/** One chunk of 32 columns times one digit of 8 rows of x, into the sums of one
 * plane or two. */
template <int kBits, int kPlanes>
__device__ __forceinline__ void multiply_chunk(
    const Weights<kBits>& weights,
    int chunk,
    const uint4& x,
    float (&sums)[kPlanes][4]) {
#pragma unroll
  for (int plane = 0; plane < kPlanes; ++plane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int pair = 4 * chunk + 2 * half;
      mma(sums[plane],
          weights.operand(0, pair, plane),
          weights.operand(1, pair, plane),
          weights.operand(0, pair + 1, plane),
          weights.operand(1, pair + 1, plane),
          half == 0 ? x.x : x.z,
          half == 0 ? x.y : x.w);
    }
  }
}

/** acc += s (sum q x) + b (sum x), then the sums begin anew. */
template <int kBits, int kPlanes>
__device__ __forceinline__ void end_group(
    const std::uint32_t (&params)[2],
    Number type,
    const float (&x_sums)[2],
    float (&sums)[kPlanes][4],
    float (&acc)[4]) {
  constexpr float kOffset = kBits == 8 ? 128.f * 17.f : 128.f;
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const float2 param = param_pair(params[row], type);
    const float rest = param.y - kOffset * param.x;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = sums[0][2 * row + i];
      if constexpr (kPlanes == 2) {
        sum += 16.f * sums[1][2 * row + i];
      }
      acc[2 * row + i] =
          fmaf(rest, x_sums[i], fmaf(param.x, sum, acc[2 * row + i]));
    }
  }
#pragma unroll
  for (int plane = 0; plane < kPlanes; ++plane) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums[plane][i] = 0.f;
    }
  }
}

/** The rows of x of a block's tile, as one lane reads them. Behind the last row
 * the last is read again; what comes of it is not written. */
template <int kTokenTiles>
struct Rows {
  const std::uint16_t* digits[kTokenTiles]; // the lane's columns of a chunk
  std::int64_t digit_stride;
  const float4* sums[kTokenTiles][2]; // of the rows whose results it has

  __device__ __forceinline__ Rows(const Multiply& args, int first, int lane) {
    const std::int64_t padded = padded_columns(args.in);
    digit_stride = args.rows * padded;
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
      const int row = min(first + n * 8 + lane / 4, args.rows - 1);
      digits[n] = args.digits + row * padded + lane % 4 * 8;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int of = min(first + n * 8 + lane % 4 * 2 + i, args.rows - 1);
        sums[n][i] = reinterpret_cast<const float4*>(
            args.sums + of * (padded / kChunkColumns));
      }
    }
  }
  __device__ __forceinline__ uint4
  digit(int index, int tile, int span, int chunk) const {
    return *reinterpret_cast<const uint4*>(
        digits[tile] + index * digit_stride + span * kSpanColumns +
        chunk * kChunkColumns);
  }
};

__device__ __forceinline__ float element(const float4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/** One span of all the block's tiles. */
template <int kBits, int kDigits, int kTokenTiles, int kRowTiles>
__device__ __forceinline__ void multiply_span(
    const Rows<kTokenTiles>& x,
    const MultiplyPart& part,
    const Weights<kBits> (&weights)[kRowTiles],
    int span,
    float (&acc)[kRowTiles][kTokenTiles][4]) {
  constexpr int kPlanes = kBits == 8 ? 2 : 1;
  float sums[kRowTiles][kTokenTiles][kPlanes][4] = {};
  float x_sums[kTokenTiles][2] = {};
#pragma unroll
  for (int chunk = 0; chunk < 4; ++chunk) {
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
      for (int digit = 0; digit < kDigits; ++digit) {
        const uint4 v = x.digit(digit, n, span, chunk);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          multiply_chunk<kBits>(weights[r], chunk, v, sums[r][n]);
        }
      }
      if constexpr (kBits != kDense) {
        x_sums[n][0] += element(x.sums[n][0][span], chunk);
        x_sums[n][1] += element(x.sums[n][1][span], chunk);
        if ((chunk + 1) % part.chunks_per_group == 0) {
#pragma unroll
          for (int r = 0; r < kRowTiles; ++r) {
            end_group<kBits>(
                weights[r].params[chunk],
                part.param_type,
                x_sums[n],
                sums[r][n],
                acc[r][n]);
          }
          x_sums[n][0] = 0.f;
          x_sums[n][1] = 0.f;
        }
      }
    }
  }
  if constexpr (kBits == kDense) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          acc[r][n][i] += sums[r][n][0][i];
        }
      }
    }
  }
}

/** The warps' sums, in order, with what is added to them. */
template <int kTokenTiles, int kRowTiles>
__device__ __forceinline__ void add_warps(
    const MultiplyPart& part,
    int rows,
    int first_row,
    const float (&acc)[kRowTiles][kTokenTiles][4],
    float* shared) {
  constexpr int kTokens = 8 * kTokenTiles;
  constexpr int kOutputs = kTileRows * kRowTiles;
  const int lane = threadIdx.x % 32;
  float* mine = shared + threadIdx.x / 32 * kOutputs * kTokens;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int output = r * kTileRows + row_of(lane, i / 2);
        mine[output * kTokens + n * 8 + lane % 4 * 2 + i % 2] = acc[r][n][i];
      }
    }
  }
  __syncthreads();
  // Outputs run fastest: stores are whole lines.
  for (int i = threadIdx.x; i < kOutputs * kTokens; i += kWarps * 32) {
    const int output =
        (blockIdx.x - part.first_block) * kOutputs + i % kOutputs;
    const int row = first_row + i / kOutputs;
    if (output >= part.out || row >= rows) {
      continue;
    }
    float y = 0.f;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      y += shared
          [warp * kOutputs * kTokens + i % kOutputs * kTokens + i / kOutputs];
    }
    const std::int64_t at = static_cast<std::int64_t>(row) * part.out + output;
    y += part.bias != nullptr ? part.bias[output] : 0.f;
    part.y[at] = part.residual != nullptr ? part.residual[at] + y : y;
  }
}

template <int kBits, int kDigits, int kTokenTiles, int kRowTiles>
__device__ __forceinline__ void multiply(const Multiply& args) {
  __shared__ float shared[kWarps * kTileRows * kRowTiles * 8 * kTokenTiles];
  const int lane = threadIdx.x % 32;
  int index = 0;
  while (index + 1 < args.n_parts &&
         static_cast<int>(blockIdx.x) >= args.parts[index + 1].first_block) {
    ++index;
  }
  const MultiplyPart& part = args.parts[index];
  const int spans = spans_of(args.in);
  const int tiles = tiles_of(part.out);
  const int tile =
      (static_cast<int>(blockIdx.x) - part.first_block) * kRowTiles;
  const int first = static_cast<int>(blockIdx.y) * 8 * kTokenTiles;
  const Rows<kTokenTiles> x(args, first, lane);
  float acc[kRowTiles][kTokenTiles][4] = {};
  const auto load = [&](Weights<kBits>(&weights)[kRowTiles], int span) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      // A tile behind the last is computed again and not written.
      const int of_part = min(tile + r, tiles - 1);
      if constexpr (kBits == kDense) {
        weights[r].load(part, args.in, of_part, span, lane);
      } else {
        weights[r].load(part, of_part, span, spans, lane);
      }
    }
  };
  // Spans on their way at once: what hides the latency of memory where there
  // are registers for it.
  constexpr int kAhead = kRowTiles > 1 ? 1 : kBits <= 4 ? 4 : 2;
  for (int begin = threadIdx.x / 32; begin < spans; begin += kWarps * kAhead) {
    Weights<kBits> weights[kAhead][kRowTiles];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i * kWarps < spans) {
        load(weights[i], begin + i * kWarps);
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i * kWarps < spans) {
        multiply_span<kBits, kDigits>(
            x, part, weights[i], begin + i * kWarps, acc);
      }
    }
  }
  add_warps<kTokenTiles, kRowTiles>(part, args.rows, first, acc, shared);
}

} // namespace

#define OPTIQ_MULTIPLY(BITS, DIGITS, NAME)                            \
  extern "C" __global__ void __launch_bounds__(kWarps * 32)           \
      multiply_##NAME##_few(const __grid_constant__ Multiply args) {  \
    multiply<BITS, DIGITS, 1, 1>(args);                               \
  }                                                                   \
  extern "C" __global__ void __launch_bounds__(kWarps * 32)           \
      multiply_##NAME##_many(const __grid_constant__ Multiply args) { \
    multiply<BITS, DIGITS, 4, 2>(args);                               \
  }

#define OPTIQ_MULTIPLY_WIDTH(BITS)        \
  OPTIQ_MULTIPLY(BITS, 2, BITS##bit_fast) \
  OPTIQ_MULTIPLY(BITS, 3, BITS##bit_exact)

OPTIQ_MULTIPLY_WIDTH(2)
OPTIQ_MULTIPLY_WIDTH(3)
OPTIQ_MULTIPLY_WIDTH(4)
OPTIQ_MULTIPLY_WIDTH(5)
OPTIQ_MULTIPLY_WIDTH(6)
OPTIQ_MULTIPLY_WIDTH(8)
OPTIQ_MULTIPLY_WIDTH(16)

} // namespace optiq::kernels::cuda
