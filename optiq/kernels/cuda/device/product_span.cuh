// One span of a product, as product.cu has it: a lane's share of weights and of
// rows, and what the tensor cores make of them.
#pragma once

#include "optiq/kernels/cuda/device/prepare.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kDense = 16; // "bits" of dense weights

/** Digits of x for fast and exact. */
constexpr int digits_of(bool is_exact) {
  return is_exact ? 2 : 1;
}

/** Where a lane's share of the tile and span in hand lies. */
struct Source {
  const MultiplyPart* part = nullptr;
  const std::uint32_t* weight = nullptr; // codes
  const std::uint32_t* params = nullptr; // of the lane's first row
  int shift = 0; // 32 columns << shift are a group
  int tile = 0;
  int span = 0;

  template <int kBits>
  __device__ __forceinline__ void
  begin(const MultiplyPart& of, int of_tile, int spans) {
    part = &of;
    tile = of_tile;
    span = static_cast<int>(threadIdx.x) / 32;
    if constexpr (kBits != kDense) {
      const int lane = threadIdx.x % 32;
      shift = of.group_shift;
      weight = of.weight + words_before(tile, span, spans, lane, 0, kBits);
      params = of.params + params_before(tile, span, spans, lane / 4, shift);
    }
  }
  /** On to the warp's next span. */
  template <int kBits>
  __device__ __forceinline__ void move() {
    span += kWarps;
    if constexpr (kBits != kDense) {
      weight += kWarps * kLanes * 2 * kBits;
      params += kWarps * kTileRows * span_params(shift);
    }
  }
  /** (scale, bias) of a row's halves of the span: of the groups that end
   * there, or in their middle. */
  __device__ __forceinline__ uint2 load_params(int row, int from = 0) const {
    return stream2(params + 8 * row * span_params(shift) + from);
  }
};

/** A span of a tile in shared memory: codes, then params of its rows. Of dense
 * weights 16 rows of 256 bytes. */
template <int kBits>
struct Stage {
  static constexpr int kCodeBytes = kLanes * 2 * kBits * 4;
  static constexpr int kQuads = kCodeBytes / 16;

  static __device__ __forceinline__ int bytes(int each) {
    return kBits == kDense ? kCodeBytes : kCodeBytes + 4 * kTileRows * each;
  }
  /** Where 16 bytes of it lie: so that eight lanes' lie in different banks. */
  static __device__ __forceinline__ int place_of(int quad) {
    if constexpr (kBits == kDense) {
      return quad ^ (quad >> 4 & 1) << 2;
    } else if constexpr (kBits == 4 || kBits == 8) {
      return quad ^ (quad >> 3 & (kBits / 2 - 1));
    } else {
      return quad;
    }
  }
  /** Whether the lane's two rows have changed places. */
  static __device__ __forceinline__ int swap_of(int) {
    return 0;
  }
};

/** The same as it lies in memory. Of every second row of 4 and 8 bits the
 * lane's two change places, so that what eight lanes read lies in different
 * banks. */
template <int kBits>
struct BulkStage {
  static constexpr int kCodeBytes = kLanes * 2 * kBits * 4;

  static __device__ __forceinline__ int place_of(int quad) {
    return quad;
  }
  static __device__ __forceinline__ int swap_of(int lane) {
    return kBits == 4 || kBits == 8 ? lane / 4 % 2 : 0;
  }
};

/** A span of a tile in shared memory. */
struct SpanAt {
  const char* codes;
  const char* params;

  __device__ __forceinline__ uint2
  params_of(int row, int each, int from) const {
    return *reinterpret_cast<const uint2*>(params + 4 * (row * each + from));
  }
};

/** A lane's share of 16 rows and one span. */
template <int kBits, bool kExact>
struct Weights {
  std::uint32_t words[2][kBits];
  uint2 params[2]; // of both rows: of the groups that end with chunks 1 and 3
  uint2 more_params[2]; // groups of 32 in shared memory: with chunks 0 and 2

  __device__ __forceinline__ void load(const Source& from, int) {
    std::uint32_t* flat = words[0];
    if constexpr (kBits % 2 == 0) {
#pragma unroll
      for (int i = 0; i < 2 * kBits; i += 4) {
        const uint4 v = stream4(from.weight + i);
        flat[i] = v.x;
        flat[i + 1] = v.y;
        flat[i + 2] = v.z;
        flat[i + 3] = v.w;
      }
    } else {
#pragma unroll
      for (int i = 0; i < 2 * kBits; i += 2) {
        const uint2 v = stream2(from.weight + i);
        flat[i] = v.x;
        flat[i + 1] = v.y;
      }
    }
    params[0] = from.load_params(0);
    params[1] = from.load_params(1);
  }

  /** The same from shared memory. */
  template <class Place>
  __device__ __forceinline__ void read(const SpanAt& from, int each) {
    const int lane = threadIdx.x % 32;
    const int swap = Place::swap_of(lane);
    std::uint32_t* flat = words[0];
    if constexpr (kBits % 2 == 0) {
      constexpr int kQuads = kBits / 2; // of both rows
#pragma unroll
      for (int i = 0; i < kQuads; ++i) {
        const uint4 v = *reinterpret_cast<const uint4*>(
            from.codes +
            16 * Place::place_of(lane * kQuads + (i ^ swap * (kQuads / 2))));
        flat[4 * i] = v.x;
        flat[4 * i + 1] = v.y;
        flat[4 * i + 2] = v.z;
        flat[4 * i + 3] = v.w;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kBits; ++i) {
        const uint2 v = *reinterpret_cast<const uint2*>(
            from.codes + 8 * (lane * kBits + i));
        flat[2 * i] = v.x;
        flat[2 * i + 1] = v.y;
      }
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      params[row] = from.params_of(row_of(lane, row ^ swap), each, 0);
      if (each > 2) {
        more_params[row] = from.params_of(row_of(lane, row ^ swap), each, 2);
      }
    }
  }

  /** Something of every load of `read`. */
  __device__ __forceinline__ std::uint32_t seen(int each) const {
    const std::uint32_t* flat = words[0];
    std::uint32_t of_all = params[0].x ^ params[1].x;
#pragma unroll
    for (int i = 0; i < 2 * kBits; i += kBits % 2 == 0 ? 4 : 2) {
      of_all ^= flat[i];
    }
    return each > 2 ? of_all ^ more_params[0].x ^ more_params[1].x : of_all;
  }

  /** Codes 2 pair and 2 pair + 1 of a row in float16, 1024 more than they are
   * for one digit of x. */
  __device__ __forceinline__ std::uint32_t operand(int row, int pair) const {
    constexpr std::uint32_t kMagic = 0x64006400u; // 1024 twice
    constexpr int kLow = low_bits(kBits);
    constexpr int kHigh = high_bits(kBits);
    std::uint32_t both = plane<kLow>(row, 0, pair, kMagic);
    if constexpr (kHigh > 0) {
      both |= plane<kHigh>(row, kLow, pair, 0) << kLow;
    }
    return kExact ? half2_difference(both, kMagic) : both;
  }

  /** A pair of one plane, with other bits set. */
  template <int kWidth>
  __device__ __forceinline__ std::uint32_t
  plane(int row, int first, int pair, std::uint32_t others) const {
    constexpr int kPerWord = 16 / kWidth;
    constexpr std::uint32_t kMask = ((1u << kWidth) - 1) * 0x00010001u;
    return and_or(
        words[row][first + pair / kPerWord] >> (pair % kPerWord * kWidth),
        kMask,
        others);
  }
};

template <bool kExact>
struct Weights<kDense, kExact> {
  uint4 words[2][4];
  uint2 more_params[2]; // none

  __device__ __forceinline__ void load(const Source& from, int in) {
    const MultiplyPart& part = *from.part;
    const int lane = threadIdx.x % 32;
    const auto* weight = reinterpret_cast<const std::uint16_t*>(part.weight);
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int output = from.tile * kTileRows + row_of(lane, row);
#pragma unroll
      for (int chunk = 0; chunk < 4; ++chunk) {
        const int column =
            from.span * kSpanColumns + column_of(lane, 8 * chunk);
        words[row][chunk] = output < part.out && column < in
            ? stream4(weight + static_cast<std::int64_t>(output) * in + column)
            : make_uint4(0, 0, 0, 0);
      }
    }
  }

  template <class Place>
  __device__ __forceinline__ void read(const SpanAt& from, int) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
#pragma unroll
      for (int chunk = 0; chunk < 4; ++chunk) {
        words[row][chunk] = *reinterpret_cast<const uint4*>(
            from.codes +
            16 *
                Place::place_of(row_of(lane, row) * 16 + 4 * chunk + lane % 4));
      }
    }
  }

  __device__ __forceinline__ std::uint32_t operand(int row, int pair) const {
    const uint4& v = words[row][pair / 4];
    const int i = pair % 4;
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
  }
};

/** One chunk of 32 columns times one digit of 8 rows of x. */
template <int kBits, bool kExact>
__device__ __forceinline__ void multiply_chunk(
    const Weights<kBits, kExact>& weights,
    int chunk,
    const uint4& x,
    float (&sums)[4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int pair = 4 * chunk + 2 * half;
    const std::uint32_t a0 = weights.operand(0, pair);
    const std::uint32_t a1 = weights.operand(1, pair);
    const std::uint32_t a2 = weights.operand(0, pair + 1);
    const std::uint32_t a3 = weights.operand(1, pair + 1);
    const std::uint32_t b0 = half == 0 ? x.x : x.z;
    const std::uint32_t b1 = half == 0 ? x.y : x.w;
    mma_f16(sums, a0, a1, a2, a3, b0, b1);
  }
}

/** acc += s (sum q x) + b (sum x), then the sums begin anew. */
template <bool kExact>
__device__ __forceinline__ void end_group(
    const std::uint32_t (&params)[2],
    Number type,
    const float2& x_sums,
    float (&sums)[4],
    float (&acc)[4]) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const float2 param = param_pair(params[row], type);
    const float rest = kExact ? param.y : fmaf(-1024.f, param.x, param.y);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      acc[2 * row + i] = fmaf(
          rest,
          i == 0 ? x_sums.x : x_sums.y,
          fmaf(param.x, sums[2 * row + i], acc[2 * row + i]));
      sums[2 * row + i] = 0.f;
    }
  }
}

/** The rows of x of a block's tile, as one lane reads them. Behind the last row
 * the last is read again; what comes of it is not written. */
template <int kTokenTiles>
struct Rows {
  const std::uint16_t* digits[kTokenTiles]; // the lane's columns of a chunk
  long long digit_stride;
  const float4* sums[kTokenTiles][2]; // of the rows whose results it has

  /** `stride` and `sums_stride`: from row to row. */
  __device__ __forceinline__ Rows(
      const std::uint16_t* of_digits,
      long long of_digit_stride,
      int stride,
      const float* of_sums,
      int sums_stride,
      int rows,
      int first,
      int lane)
      : digit_stride(of_digit_stride) {
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
      const int row = min(first + n * 8 + lane / 4, rows - 1);
      digits[n] =
          of_digits + static_cast<long long>(row) * stride + lane % 4 * 8;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const long long of = min(first + n * 8 + lane % 4 * 2 + i, rows - 1);
        sums[n][i] =
            reinterpret_cast<const float4*>(of_sums + of * sums_stride);
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

/** What groups of a part are. */
struct Groups {
  int shift;
  Number type;
};

/** Most often: of 64 columns and more, in bfloat16. */
struct UsualGroups {
  static constexpr int shift = 1;
  static constexpr Number type = Number::BFloat16;
};

/** One span of kRowTiles tiles, whose groups end with its halves. Those of 32
 * columns end in their middle, too: what they are scaled by is loaded only
 * here, by `more_params`. */
template <
    int kBits,
    bool kExact,
    int kTokenTiles,
    int kRowTiles,
    class OfGroups,
    class MoreParams>
__device__ __forceinline__ void multiply_span(
    const Rows<kTokenTiles>& x,
    int span,
    const OfGroups& groups,
    const Weights<kBits, kExact> (&weights)[kRowTiles],
    const MoreParams& more_params,
    float (&acc)[kRowTiles][kTokenTiles][4]) {
  constexpr int kDigits = digits_of(kExact);
  float sums[kRowTiles][kTokenTiles][4] = {};
  float4 x_sums[kTokenTiles][2];
  if constexpr (kBits != kDense) {
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
      x_sums[n][0] = x.sums[n][0][span];
      x_sums[n][1] = x.sums[n][1][span];
    }
  }
  const auto end =
      [&](int r, int n, const uint2(&params)[2], int half, float2 of_x) {
        const std::uint32_t both[2] = {
            half == 0 ? params[0].x : params[0].y,
            half == 0 ? params[1].x : params[1].y};
        end_group<kExact>(both, groups.type, of_x, sums[r][n], acc[r][n]);
      };
#pragma unroll
  for (int chunk = 0; chunk < 4; ++chunk) {
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
      for (int digit = 0; digit < kDigits; ++digit) {
        const uint4 v = x.digit(digit, n, span, chunk);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          multiply_chunk(weights[r], chunk, v, sums[r][n]);
        }
      }
    }
    if constexpr (kBits != kDense) {
      const int half = chunk / 2;
      const bool is_middle = chunk % 2 == 0;
      if (is_middle && groups.shift > 0) {
        continue;
      }
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
        for (int n = 0; n < kTokenTiles; ++n) {
          float4& a = x_sums[n][0];
          float4& b = x_sums[n][1];
          if (is_middle) {
            const uint2 more[2] = {more_params(r, 0), more_params(r, 1)};
            end(r, n, more, half, {element(a, chunk), element(b, chunk)});
            continue;
          }
          const float first[2] = {
              groups.shift > 0 ? element(a, chunk - 1) : 0.f,
              groups.shift > 0 ? element(b, chunk - 1) : 0.f};
          end(r,
              n,
              weights[r].params,
              half,
              {first[0] + element(a, chunk), first[1] + element(b, chunk)});
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
          acc[r][n][i] += sums[r][n][i];
        }
      }
    }
  }
}

} // namespace
} // namespace optiq::kernels::cuda
