// Products of matrices in floats on tensor cores: each number as two of TF32,
// the larger part and what it leaves, three products for each pair (the fourth,
// of what is left of both, is below float32's rounding). Sums in float32, the
// inner dimension in order.
#include "optiq/kernels/cuda/device/common.cuh"
#include "optiq/kernels/cuda/gradient_arguments.h"

namespace optiq::kernels::cuda {
namespace {

constexpr int kInner = 16; // of a stage
constexpr int kWarpsAcross = 2; // of eight, side by side

/** c += A B, 16 x 8 times 8 x 8. Lane 4 g + t holds of A rows g (a0, a2) and g
 * + 8 (a1, a3), of B column g, at k = t (a0, a1, b0) and t + 4 (a2, a3, b1); of
 * c as mma_f16. */
__device__ __forceinline__ void mma_tf32(
    float (&c)[4],
    const std::uint32_t (&a)[4],
    const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/** A number's upper bits as TF32 takes them, and what they leave. */
template <int kCount>
struct Split {
  std::uint32_t high[kCount];
  std::uint32_t low[kCount];

  __device__ __forceinline__ void set(int i, float x) {
    high[i] = __float_as_uint(x) & 0xffffe000u;
    low[i] = __float_as_uint(x - __uint_as_float(high[i]));
  }
};

/** A factor's tile of kRows rows (of B: columns) by kInner: in shared memory
 * its numbers lie as in memory, along kInner or along the rows, so that four of
 * them move at once either way. Rows of shared memory are padded to other
 * banks. */
template <int kRows, bool kIsInnerAdjacent>
struct Tile {
  static constexpr int kPitch = kIsInnerAdjacent ? kInner + 4 : kRows + 8;
  float values[kIsInnerAdjacent ? kRows : kInner][kPitch];

  __device__ __forceinline__ float at(int row, int inner) const {
    return kIsInnerAdjacent ? values[row][inner] : values[inner][row];
  }
};

/** Four numbers side by side, of which the first `count` are there. */
__device__ __forceinline__ float4
load4(const Factor& from, long long at, int count) {
  if (count >= 4 && from.is_aligned != 0) {
    if (from.type == Number::Float32) {
      return *reinterpret_cast<const float4*>(
          static_cast<const float*>(from.data) + at);
    }
    const uint2 both = *reinterpret_cast<const uint2*>(
        static_cast<const unsigned short*>(from.data) + at);
    const float2 low = param_pair(both.x, from.type);
    const float2 high = param_pair(both.y, from.type);
    return {low.x, low.y, high.x, high.y};
  }
  float4 v{0.f, 0.f, 0.f, 0.f};
  float* values = &v.x;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < count) {
      values[i] = number_at(from.data, from.type, at + i);
    }
  }
  return v;
}

/** What a thread brings of a tile. */
template <int kRows, bool kIsInnerAdjacent>
struct TileCopy {
  static constexpr int kQuads = kRows * kInner / 4 / kFloatProductThreads;
  static constexpr int kAcross = (kIsInnerAdjacent ? kInner : kRows) / 4;
  float4 quads[kQuads];

  /** Of quad i the line in shared memory, and where it begins there. */
  static __device__ __forceinline__ int2 place(int i) {
    const int at = i * kFloatProductThreads + static_cast<int>(threadIdx.x);
    return {at / kAcross, at % kAcross * 4};
  }

  /** `rows` and `inner` are there, from the tile's first on, at `stride` from
   * line to line. */
  __device__ __forceinline__ void load(
      const Factor& from,
      long long first,
      long long stride,
      int rows,
      int inner) {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int2 to = place(i);
      const int lines = kIsInnerAdjacent ? rows : inner;
      const int width = kIsInnerAdjacent ? inner : rows;
      quads[i] = load4(
          from, first + to.x * stride + to.y, to.x < lines ? width - to.y : 0);
    }
  }

  __device__ __forceinline__ void keep(
      Tile<kRows, kIsInnerAdjacent>& to) const {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int2 at = place(i);
      *reinterpret_cast<float4*>(&to.values[at.x][at.y]) = quads[i];
    }
  }
};

template <int kTile, bool kIsAInner, bool kIsBInner>
struct Stage {
  Tile<kTile, kIsAInner> a;
  Tile<kTile, kIsBInner> b;
};

/** A block of threads has kTile x kTile of C. kIsAInner: A's rows lie side by
 * side in memory; kIsBInner: B's columns do. kHasLowB: B's numbers do not fit
 * into TF32. Grid: columns, rows, heads. */
template <int kTile, bool kIsAInner, bool kIsBInner, bool kHasLowB>
__device__ __forceinline__ void multiply_floats(const FloatProduct& args) {
  constexpr int kWarpsDown = 8 / kWarpsAcross;
  constexpr int kDown = kTile / kWarpsDown / 16; // tiles of a warp
  constexpr int kAcross = kTile / kWarpsAcross / 8;
  __shared__ __align__(16) Stage<kTile, kIsAInner, kIsBInner> stages[2];
  begin_kernel();
  const int first_row = blockIdx.y * kTile;
  const int first_column = blockIdx.x * kTile;
  const int head = blockIdx.z;
  const long long a_at =
      head / args.a.group * args.a.batch + first_row * args.a.row;
  const long long b_at =
      head / args.b.group * args.b.batch + first_column * args.b.column;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int row = warp / kWarpsAcross * (kTile / kWarpsDown) + lane / 4;
  const int column = warp % kWarpsAcross * (kTile / kWarpsAcross) + lane / 4;
  TileCopy<kTile, kIsAInner> a_copy;
  TileCopy<kTile, kIsBInner> b_copy;
  const auto load = [&](int k) {
    a_copy.load(
        args.a,
        a_at + k * args.a.column,
        kIsAInner ? args.a.row : args.a.column,
        args.rows - first_row,
        args.inner - k);
    b_copy.load(
        args.b,
        b_at + k * args.b.row,
        kIsBInner ? args.b.column : args.b.row,
        args.columns - first_column,
        args.inner - k);
  };
  float sums[kDown][kAcross][4] = {};
  load(0);
  a_copy.keep(stages[0].a);
  b_copy.keep(stages[0].b);
  __syncthreads();
  for (int k = 0; k < args.inner; k += kInner) {
    const auto& stage = stages[k / kInner % 2];
    const bool has_next = k + kInner < args.inner;
    if (has_next) {
      load(k + kInner);
    }
#pragma unroll
    for (int step = 0; step < kInner; step += 8) {
      const int at = step + lane % 4;
      Split<4> a[kDown];
      Split<2> b[kAcross];
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
        const int r = row + 16 * i;
        a[i].set(0, stage.a.at(r, at));
        a[i].set(1, stage.a.at(r + 8, at));
        a[i].set(2, stage.a.at(r, at + 4));
        a[i].set(3, stage.a.at(r + 8, at + 4));
      }
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        b[j].set(0, stage.b.at(column + 8 * j, at));
        b[j].set(1, stage.b.at(column + 8 * j, at + 4));
      }
      // A sum is not asked for again before the others have been.
      const auto multiply_all = [&](const auto& a_of, const auto& b_of) {
#pragma unroll
        for (int j = 0; j < kAcross; ++j) {
#pragma unroll
          for (int i = 0; i < kDown; ++i) {
            mma_tf32(sums[i][j], a_of(i), b_of(j));
          }
        }
      };
      const auto a_high = [&](int i) -> auto& {
        return a[i].high;
      };
      const auto a_low = [&](int i) -> auto& {
        return a[i].low;
      };
      const auto b_high = [&](int j) -> auto& {
        return b[j].high;
      };
      const auto b_low = [&](int j) -> auto& {
        return b[j].low;
      };
      multiply_all(a_low, b_high);
      if constexpr (kHasLowB) {
        multiply_all(a_high, b_low);
      }
      multiply_all(a_high, b_high);
    }
    if (has_next) {
      auto& next = stages[(k / kInner + 1) % 2];
      a_copy.keep(next.a);
      b_copy.keep(next.b);
    }
    __syncthreads();
  }
  const float factor = args.factor * args.a.factor * args.b.factor;
#pragma unroll
  for (int i = 0; i < kDown; ++i) {
#pragma unroll
    for (int j = 0; j < kAcross; ++j) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int r = first_row + row + 16 * i + n / 2 * 8;
        const int c =
            first_column + column - lane / 4 + 8 * j + lane % 4 * 2 + n % 2;
        if (r < args.rows && c < args.columns) {
          float& to = args.c[head * args.c_batch + r * args.c_row + c];
          const float found = sums[i][j][n] * factor;
          to = args.accumulates != 0 ? to + found : found;
        }
      }
    }
  }
}

} // namespace

#define OPTIQ_FLOAT_PRODUCT(NAME, TILE, A, B, LOW)                   \
  extern "C" __global__ void __launch_bounds__(kFloatProductThreads) \
      float_product_##NAME##_##TILE(                                 \
          const __grid_constant__ FloatProduct args) {               \
    multiply_floats<TILE, A, B, LOW>(args);                          \
  }
#define OPTIQ_FLOAT_PRODUCTS(TILE)                      \
  OPTIQ_FLOAT_PRODUCT(rows, TILE, true, false, true)    \
  OPTIQ_FLOAT_PRODUCT(halves, TILE, true, false, false) \
  OPTIQ_FLOAT_PRODUCT(outer, TILE, false, false, true)  \
  OPTIQ_FLOAT_PRODUCT(dots, TILE, true, true, true)

OPTIQ_FLOAT_PRODUCTS(128)
OPTIQ_FLOAT_PRODUCTS(64)

} // namespace optiq::kernels::cuda
