// Products on tensor cores. 16 rows of W are the A operand of
// mma.sync.m16n8k16 and 8 rows of x its B operand, so that up to 8 rows of x
// cost one pass over W:
//
//   y[t][o] = scale[t] * sum over groups: s (sum q x) + b (sum x)
//
// Codes are exact integers in float16: 1024 + q, whose 1024 sum(x) leaves with
// b (one digit of x), or q itself (two digits). x is one or two float16 digits
// of a row brought below 2^15, of dense weights two or three bfloat16 digits;
// sums are float32. Eight warps share the columns, warp w taking spans w, w +
// 8, ...; their sums are added in order. So the bits of a row do not depend on
// how many rows there are, nor on which of the kernels below runs.
#include "optiq/kernels/cuda/device/product_span.cuh"

namespace optiq::kernels::cuda {
namespace {

/** Sums of one warp: [tokens][outputs], spread over the banks. */
template <int kTokenTiles, int kRowTiles>
struct Partial {
  static constexpr int kTokens = 8 * kTokenTiles;
  static constexpr int kOutputs = kTileRows * kRowTiles;
  float values[kTokens][kOutputs + 4];

  __device__ __forceinline__ void
  write(const float (&acc)[kRowTiles][kTokenTiles][4], int rows, int lane) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int token = n * 8 + lane % 4 * 2 + i % 2;
          if (token < rows) {
            values[token][r * kTileRows + row_of(lane, i / 2)] = acc[r][n][i];
          }
        }
      }
    }
  }
};

/** The warps' sums in order, times the row's scale. */
template <int kTokenTiles, int kRowTiles>
__device__ __forceinline__ float sum_of_warps(
    const Partial<kTokenTiles, kRowTiles> (&partials)[kWarps],
    int token,
    int output,
    float scale) {
  float y = 0.f;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    y += partials[warp].values[token][output];
  }
  return y * scale;
}

__device__ __forceinline__ void
write_result(const MultiplyPart& part, int row, int output, float y) {
  const long long at = static_cast<long long>(row) * part.out + output;
  y += part.bias != nullptr ? part.bias[output] : 0.f;
  part.y[at] = part.residual != nullptr ? part.residual[at] + y : y;
}

/** The tiles of a block of threads that goes through several, each in as many
 * steps as a warp has spans at most. Of gated parts a tile of the first and the
 * same of the second in turn. */
struct Walk {
  int tiles; // of this block
  int steps; // of a tile
  int index = 0; // of a tile among them
  int step = 0;
  int part; // of the tile in hand: constant memory is read by index
  int tile;

  __device__ __forceinline__ Walk(const Multiply& args, int spans)
      : steps((spans + kWarps - 1) / kWarps) {
    const int parts = args.is_gated ? 2 : 1;
    const int all = args.is_gated ? args.n_blocks / 2 : args.n_blocks;
    const auto blocks = static_cast<int>(gridDim.x);
    tiles =
        parts * ((all - static_cast<int>(blockIdx.x) + blocks - 1) / blocks);
    begin_tile(args);
  }
  __device__ __forceinline__ bool is_inside() const {
    return index < tiles;
  }
  __device__ __forceinline__ void begin_tile(const Multiply& args) {
    const int n = args.is_gated ? index >> 1 : index;
    step = 0;
    part = args.is_gated ? index & 1 : 0;
    tile = static_cast<int>(blockIdx.x) + n * static_cast<int>(gridDim.x);
    if (!args.is_gated) {
      const int block = tile;
      for (int i = 1; i < args.n_parts; ++i) {
        if (block >= args.parts[i].first_block) {
          part = i;
          tile = block - args.parts[i].first_block;
        }
      }
    }
  }
  /** On to the next step; whether a tile is done. */
  __device__ __forceinline__ bool move(const Multiply& args) {
    if (++step < steps) {
      return false;
    }
    ++index;
    begin_tile(args);
    return true;
  }
};

/** The digits of a single row in shared memory: digits, then their sums. */
__device__ __forceinline__ Rows<1> own_row(
    const PrepareRows& args,
    float& scale) {
  extern __shared__ uint4 own_digits[];
  const RowDigits to{
      reinterpret_cast<std::uint16_t*>(own_digits),
      args.padded,
      reinterpret_cast<float*>(
          reinterpret_cast<std::uint16_t*>(own_digits) +
          static_cast<long long>(args.n_digits) * args.padded)};
  const RowForm form = form_of(args.x, args);
  for (int span = threadIdx.x / 32; span < args.padded / kSpanColumns;
       span += kWarps) {
    write_span(args, args.x, form, span, nullptr, to);
  }
  __syncthreads();
  scale = inverse_scale(form.scale);
  return Rows<1>(to.digits, to.sums, 1, args.padded, 0, threadIdx.x % 32);
}

/** Up to 8 kTokenTiles rows; kOwn: one, which the block prepares. */
template <int kBits, bool kExact, int kTokenTiles, bool kOwn>
__device__ __forceinline__ void multiply_few(const Multiply& args) {
  // Spans on their way at once: what hides the latency of memory.
  constexpr int kAhead = (kBits <= 4       ? 4
                              : kBits <= 6 ? 3
                                           : 2) -
      (kTokenTiles - 1);
  __shared__ Partial<kTokenTiles, 1> partials[2][kWarps];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int spans = spans_of(args.in);
  allow_next();
  Walk ahead(args, spans);
  Source source;
  source.begin<kBits>(args.parts[ahead.part], ahead.tile, spans);
  Weights<kBits, kExact> ring[kAhead][1];
  const auto load = [&](Weights<kBits, kExact>& to) {
    if (!ahead.is_inside()) {
      return;
    }
    if (source.span < spans) {
      to.load(source, args.in);
    }
    if (!ahead.move(args)) {
      source.move<kBits>();
    } else if (ahead.is_inside()) {
      source.begin<kBits>(args.parts[ahead.part], ahead.tile, spans);
    }
  };
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    load(ring[i][0]);
  }
  await_previous(); // weights are there for long, rows are not
  float own_scale = 1.f;
  const Rows<kTokenTiles> x = [&] {
    if constexpr (kOwn) {
      return own_row(args.own, own_scale);
    } else {
      return Rows<kTokenTiles>(
          args.digits, args.sums, args.rows, padded_columns(args.in), 0, lane);
    }
  }();
  float acc[1][kTokenTiles][4] = {};
  float gate = 0.f; // of this thread's result
  Walk walk(args, spans);
  while (walk.is_inside()) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (!walk.is_inside()) {
        break;
      }
      const MultiplyPart& part = args.parts[walk.part];
      const int span = warp + walk.step * kWarps;
      if (span < spans) {
        const auto more_params = [&](int, int row) {
          Source again;
          again.begin<kBits>(part, walk.tile, spans);
          again.params += (span - warp) * kTileRows * span_params(again.shift);
          return again.load_params(row, 2);
        };
        multiply_span<kBits, kExact>(
            x,
            span,
            {part.group_shift, part.param_type},
            ring[i],
            more_params,
            acc);
      }
      load(ring[i][0]);
      const int index = walk.index;
      const int tile = walk.tile;
      if (!walk.move(args)) {
        continue;
      }
      // Two sets of sums: a warp that is ahead writes the other.
      Partial<kTokenTiles, 1>(&sums)[kWarps] = partials[index % 2];
      sums[warp].write(acc, args.rows, lane);
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          acc[0][n][j] = 0.f;
        }
      }
      __syncthreads();
      const int token = threadIdx.x / kTileRows;
      const int output =
          tile * kTileRows + static_cast<int>(threadIdx.x) % kTileRows;
      if (token >= args.rows || output >= part.out) {
        continue;
      }
      const float scale = kOwn ? own_scale : args.scales[token];
      const float y = sum_of_warps(sums, token, threadIdx.x % kTileRows, scale);
      if (!args.is_gated) {
        write_result(part, token, output, y);
        continue;
      }
      const float with_bias =
          y + (part.bias != nullptr ? part.bias[output] : 0.f);
      if (index % 2 == 0) {
        gate = with_bias;
      } else {
        const float activated =
            args.activation == Elementwise::Silu ? silu(gate) : gelu_tanh(gate);
        part.y[static_cast<long long>(token) * part.out + output] =
            activated * with_bias;
      }
    }
  }
}

/** Tiles of 32 rows and 32 outputs. */
template <int kBits, bool kExact>
__device__ __forceinline__ void multiply_many(const Multiply& args) {
  constexpr int kTokenTiles = 4;
  constexpr int kRowTiles = 2;
  using Sums = Partial<kTokenTiles, kRowTiles>;
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
  const Rows<kTokenTiles> x(
      args.digits, args.sums, args.rows, padded_columns(args.in), first, lane);
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
        {part.group_shift, part.param_type},
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
  for (int i = threadIdx.x; i < Sums::kOutputs * Sums::kTokens; i += kThreads) {
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
              args.scales[row]));
    }
  }
}

} // namespace

#define OPTIQ_MULTIPLY(BITS, EXACT, NAME)                            \
  extern "C" __global__ void __launch_bounds__(kThreads, 2)          \
      multiply_##NAME##_own(const __grid_constant__ Multiply args) { \
    multiply_few<BITS, EXACT, 1, true>(args);                        \
  }                                                                  \
  extern "C" __global__ void __launch_bounds__(kThreads, 2)          \
      multiply_##NAME##_8(const __grid_constant__ Multiply args) {   \
    multiply_few<BITS, EXACT, 1, false>(args);                       \
  }                                                                  \
  extern "C" __global__ void __launch_bounds__(kThreads, 2)          \
      multiply_##NAME##_16(const __grid_constant__ Multiply args) {  \
    multiply_few<BITS, EXACT, 2, false>(args);                       \
  }                                                                  \
  extern "C" __global__ void __launch_bounds__(kThreads)             \
      multiply_##NAME##_all(const __grid_constant__ Multiply args) { \
    multiply_many<BITS, EXACT>(args);                                \
  }

#define OPTIQ_MULTIPLY_WIDTH(BITS)            \
  OPTIQ_MULTIPLY(BITS, false, BITS##bit_fast) \
  OPTIQ_MULTIPLY(BITS, true, BITS##bit_exact)

OPTIQ_MULTIPLY_WIDTH(2)
OPTIQ_MULTIPLY_WIDTH(3)
OPTIQ_MULTIPLY_WIDTH(4)
OPTIQ_MULTIPLY_WIDTH(5)
OPTIQ_MULTIPLY_WIDTH(6)
OPTIQ_MULTIPLY_WIDTH(8)
OPTIQ_MULTIPLY_WIDTH(16)

} // namespace optiq::kernels::cuda
