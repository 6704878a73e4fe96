// Products of matrices in floats on tensor cores: each number as two of TF32,
// the larger part and what it leaves, three products for each pair (the fourth,
// of what is left of both, is below float32's rounding). Sums in float32, the
// inner dimension in order.
#include "optiq/kernels/cuda/device/common.cuh"
#include "optiq/kernels/cuda/gradient_arguments.h"

namespace optiq::kernels::cuda {
namespace {

constexpr int kInner = 16; // of a stage
constexpr int kPitch = kInner + 4; // floats between rows: other banks
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

/** A factor's tile on its way to shared memory: `kRows` rows (of B: columns) by
 * kInner, as [row][inner]. */
template <int kRows>
struct TileCopy {
  static constexpr int kEach = kRows * kInner / kFloatProductThreads;
  float values[kEach];

  /** Threads side by side read what lies side by side. */
  static __device__ __forceinline__ void
  place(bool is_inner_adjacent, int i, int& row, int& inner) {
    const int at = i * kFloatProductThreads + threadIdx.x;
    row = is_inner_adjacent ? at / kInner : at % kRows;
    inner = is_inner_adjacent ? at % kInner : at / kRows;
  }

  __device__ __forceinline__ void load(
      const Factor& from,
      long long first,
      long long row_stride,
      long long inner_stride,
      int rows, // from the tile's first on
      int inner) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      int r = 0;
      int k = 0;
      place(inner_stride == 1, i, r, k);
      values[i] = r < rows && k < inner
          ? number_at(
                from.data, from.type, first + r * row_stride + k * inner_stride)
          : 0.f;
    }
  }

  __device__ __forceinline__ void keep(
      bool is_inner_adjacent,
      float (&to)[kRows][kPitch]) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      int r = 0;
      int k = 0;
      place(is_inner_adjacent, i, r, k);
      to[r][k] = values[i];
    }
  }
};

template <int kRows, int kColumns>
struct Stage {
  float a[kRows][kPitch];
  float b[kColumns][kPitch];
};

/** A block of threads has kRows x kColumns of C. Grid: columns, rows, heads. */
template <int kRows, int kColumns>
__device__ __forceinline__ void multiply_floats(const FloatProduct& args) {
  constexpr int kWarpsDown = 8 / kWarpsAcross;
  constexpr int kTilesDown = kRows / kWarpsDown / 16;
  constexpr int kTilesAcross = kColumns / kWarpsAcross / 8;
  __shared__ Stage<kRows, kColumns> stages[2];
  begin_kernel();
  const int first_row = blockIdx.y * kRows;
  const int first_column = blockIdx.x * kColumns;
  const int head = blockIdx.z;
  const long long a_at =
      head / args.a.group * args.a.batch + first_row * args.a.row;
  const long long b_at =
      head / args.b.group * args.b.batch + first_column * args.b.column;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int row = warp / kWarpsAcross * (kRows / kWarpsDown);
  const int column = warp % kWarpsAcross * (kColumns / kWarpsAcross);
  TileCopy<kRows> a_copy;
  TileCopy<kColumns> b_copy;
  const auto load = [&](int k) {
    a_copy.load(
        args.a,
        a_at + k * args.a.column,
        args.a.row,
        args.a.column,
        args.rows - first_row,
        args.inner - k);
    b_copy.load(
        args.b,
        b_at + k * args.b.row,
        args.b.column,
        args.b.row,
        args.columns - first_column,
        args.inner - k);
  };
  const auto keep = [&](Stage<kRows, kColumns>& to) {
    a_copy.keep(args.a.column == 1, to.a);
    b_copy.keep(args.b.row == 1, to.b);
  };
  float sums[kTilesDown][kTilesAcross][4] = {};
  load(0);
  keep(stages[0]);
  __syncthreads();
  for (int k = 0; k < args.inner; k += kInner) {
    const Stage<kRows, kColumns>& stage = stages[k / kInner % 2];
    const bool has_next = k + kInner < args.inner;
    if (has_next) {
      load(k + kInner);
    }
#pragma unroll
    for (int step = 0; step < kInner; step += 8) {
      const int at = step + lane % 4;
      Split<4> a[kTilesDown];
#pragma unroll
      for (int i = 0; i < kTilesDown; ++i) {
        const int r = row + 16 * i + lane / 4;
        a[i].set(0, stage.a[r][at]);
        a[i].set(1, stage.a[r + 8][at]);
        a[i].set(2, stage.a[r][at + 4]);
        a[i].set(3, stage.a[r + 8][at + 4]);
      }
#pragma unroll
      for (int j = 0; j < kTilesAcross; ++j) {
        const int c = column + 8 * j + lane / 4;
        Split<2> b;
        b.set(0, stage.b[c][at]);
        b.set(1, stage.b[c][at + 4]);
#pragma unroll
        for (int i = 0; i < kTilesDown; ++i) {
          mma_tf32(sums[i][j], a[i].low, b.high);
          mma_tf32(sums[i][j], a[i].high, b.low);
          mma_tf32(sums[i][j], a[i].high, b.high);
        }
      }
    }
    if (has_next) {
      keep(stages[(k / kInner + 1) % 2]);
    }
    __syncthreads();
  }
  const float factor = args.factor * args.a.factor * args.b.factor;
#pragma unroll
  for (int i = 0; i < kTilesDown; ++i) {
#pragma unroll
    for (int j = 0; j < kTilesAcross; ++j) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int r = first_row + row + 16 * i + lane / 4 + n / 2 * 8;
        const int c = first_column + column + 8 * j + lane % 4 * 2 + n % 2;
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

#define OPTIQ_FLOAT_PRODUCT(ROWS, COLUMNS)                              \
  extern "C" __global__ void __launch_bounds__(kFloatProductThreads)    \
      float_product_##ROWS(const __grid_constant__ FloatProduct args) { \
    multiply_floats<ROWS, COLUMNS>(args);                               \
  }

OPTIQ_FLOAT_PRODUCT(128, 128)
OPTIQ_FLOAT_PRODUCT(64, 64)

} // namespace optiq::kernels::cuda
