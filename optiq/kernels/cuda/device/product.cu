// Products on tensor cores. 16 rows of W are the A operand of
// mma.sync.m16n8k16 and 8 rows of x its B operand, so that up to 8 rows of x
// cost one pass over W:
//
//   y[t][o] = factor[t] * sum over shares: scale[t][share] *
//             sum over groups: s (sum q x) + b (sum x)
//
// Codes are exact integers in float16: 1024 + q, whose 1024 sum(x) leaves with
// b (one digit of x), or q itself (two digits). Dense weights are float16 times
// a power of two (MatrixData::unit). x is one or two float16 digits of a share
// brought below 2^15; sums are float32. Eight warps share the columns, warp w
// taking spans w, w + 8, ...; their sums are added in order. So the bits of a
// row do not depend on how many rows there are, nor on whether this file's
// kernel runs, of any number, or one of product_few.cu.
#include "optiq/kernels/cuda/device/product_sums.cuh"

namespace optiq::kernels::cuda {
namespace {

/** Tiles of 32 rows and 32 outputs. */
template <int kBits, bool kExact>
__device__ __forceinline__ void multiply_many(const Multiply& args) {
  constexpr int kTokenTiles = 4;
  constexpr int kRowTiles = 2;
  using Sums = Partial<8 * kTokenTiles, kRowTiles>;
  constexpr int kTokens = 8 * kTokenTiles;
  __shared__ Sums partials[kWarps];
  begin_kernel();
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  int index = 0;
  while (index + 1 < args.n_parts &&
         static_cast<int>(blockIdx.x) >= args.parts[index + 1].first_block) {
    ++index;
  }
  const MultiplyPart& part = args.parts[index];
  const int spans = spans_of(args.in);
  const int tile =
      (static_cast<int>(blockIdx.x) - part.first_block) * kRowTiles;
  const int first = static_cast<int>(blockIdx.y) * 8 * kTokenTiles;
  const int padded = padded_columns(args.in);
  const Rows<kTokenTiles> x(
      args.digits,
      static_cast<long long>(args.rows) * padded,
      padded,
      args.sums,
      padded / kChunkColumns,
      args.rows,
      first,
      lane);
  float acc[kRowTiles][kTokenTiles][4] = {};
  Source sources[kRowTiles];
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    // A tile behind the last is computed again and not written.
    sources[r].begin<kBits>(part, min(tile + r, tiles_of(part.out) - 1), spans);
  }
  const auto more_params = [&](int r, int row) {
    return sources[r].load_params(row, 2);
  };
  while (sources[0].span < spans) {
    Weights<kBits, kExact> weights[kRowTiles];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      weights[r].load(sources[r], args.in);
    }
    multiply_span<kBits, kExact>(
        x,
        sources[0].span,
        Groups{part.group_shift, part.param_type},
        weights,
        more_params,
        acc);
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      sources[r].move<kBits>();
    }
  }
  partials[warp].write(acc, args.rows - first, lane);
  __syncthreads();
  // Outputs run fastest: stores are whole lines.
  for (int i = threadIdx.x; i < Sums::kOutputs * kTokens; i += kThreads) {
    const int output = tile * kTileRows + i % Sums::kOutputs;
    const int row = first + i / Sums::kOutputs;
    if (output < part.out && row < args.rows) {
      write_result(
          part,
          row,
          output,
          sum_of_warps(
              partials,
              i / Sums::kOutputs,
              i % Sums::kOutputs,
              args.row_scales[row],
              part));
    }
  }
}

} // namespace

#define OPTIQ_MULTIPLY(BITS, EXACT, NAME)                            \
  extern "C" __global__ void __launch_bounds__(kThreads)             \
      multiply_##NAME##_all(const __grid_constant__ Multiply args) { \
    multiply_many<BITS, EXACT>(args);                                \
  }

OPTIQ_FOR_WEIGHTS(OPTIQ_MULTIPLY)

} // namespace optiq::kernels::cuda
