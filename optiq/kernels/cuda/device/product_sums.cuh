// What comes of the sums that the warps of a block have.
#pragma once

#include "optiq/kernels/cuda/device/product_span.cuh"

namespace optiq::kernels::cuda {
namespace {

/** Sums of one warp: [tokens][outputs], spread over the banks. */
template <int kTokens, int kRowTiles>
struct Partial {
  static constexpr int kOutputs = kTileRows * kRowTiles;
  float values[kTokens][kOutputs + 4];

  /** `swap`: 1 where the lane's two rows have changed places. */
  template <int kTokenTiles>
  __device__ __forceinline__ void write(
      const float (&acc)[kRowTiles][kTokenTiles][4],
      int rows,
      int lane,
      int swap = 0) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (kTokens == 1 && i % 2 == 1) {
            continue;
          }
          const int token = n * 8 + lane % 4 * 2 + i % 2;
          if (token < rows) {
            values[token][r * kTileRows + row_of(lane, i / 2 ^ swap)] =
                acc[r][n][i];
          }
        }
      }
    }
  }
};

static_assert(kShares == kWarps);

/** The warps' sums in order, times what the part's weights are in. */
template <int kTokens, int kRowTiles>
__device__ __forceinline__ float sum_of_warps(
    const Partial<kTokens, kRowTiles> (&partials)[kWarps],
    int token,
    int output,
    const RowScales& scales,
    const MultiplyPart& part) {
  float y = 0.f;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    y = fmaf(partials[warp].values[token][output], scales.shares[warp], y);
  }
  // Not one operation with what is added.
  return __fmul_rn(y, scales.factor * part.unit);
}

__device__ __forceinline__ void
write_result(const MultiplyPart& part, int row, int output, float y) {
  const long long at = static_cast<long long>(row) * part.out + output;
  y += part.bias != nullptr ? part.bias[output] : 0.f;
  part.y[at] = part.residual != nullptr ? part.residual[at] + y : y;
}

} // namespace

// Kernels of every width of codes: M(bits, whether exact, part of the name).
#define OPTIQ_FOR_CODES(M)  \
  M(2, false, 2bit_fast)    \
  M(2, true, 2bit_exact)    \
  M(3, false, 3bit_fast)    \
  M(3, true, 3bit_exact)    \
  M(4, false, 4bit_fast)    \
  M(4, true, 4bit_exact)    \
  M(5, false, 5bit_fast)    \
  M(5, true, 5bit_exact)    \
  M(6, false, 6bit_fast)    \
  M(6, true, 6bit_exact)    \
  M(8, false, 8bit_fast)    \
  M(8, true, 8bit_exact)
// And of dense weights.
#define OPTIQ_FOR_WEIGHTS(M) \
  OPTIQ_FOR_CODES(M)         \
  M(16, false, 16bit_fast)   \
  M(16, true, 16bit_exact)

} // namespace optiq::kernels::cuda
