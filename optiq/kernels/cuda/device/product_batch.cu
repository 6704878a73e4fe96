// Fast products of 9 to 64 rows, as of a batch of sequences, with the bits of
// product.cu. A task is 16 or 32 rows and two or four tiles of 16 outputs; each
// of eight warps has its spans of the columns, of all of them: spans of rows
// and of weights are on their way to shared memory while one is multiplied.
// What is read of rows is used for all tiles, and products that do not wait for
// each other follow each other: tensor cores answer late.
#include "optiq/kernels/cuda/device/product_sums.cuh"
#include "optiq/kernels/cuda/device/product_task.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr int kAtOnce = 2; // tiles that are multiplied together
constexpr int kRowBytes = 2 * kSpanColumns; // of a span of a row
constexpr int kParamBytes = 128; // of a tile: groups of 64 or 128 columns

/** A span in shared memory: digits of rows, their sums, then codes and params
 * of each tile. Of every second row halves are exchanged, so that what eight
 * lanes read lies in different banks. */
template <int kBits, int kTiles, int kRows>
struct BatchStage {
  static constexpr int kSumsAt = kRows * kRowBytes;
  static constexpr int kTilesAt = kSumsAt + kRows * 16;
  static constexpr int kCodeBytes = 256 * kBits;
  static constexpr int kTileBytes = kCodeBytes + kParamBytes;
  static constexpr int kBytes = kTilesAt + kTiles * kTileBytes;
  static_assert(kBytes == batch_stage_bytes(kBits, kTiles, kRows));
  static constexpr int kStages = batch_stages(kBits, kTiles, kRows);
  static_assert(kStages >= 2);

  static __device__ __forceinline__ int place_of(int row, int quad) {
    return row * kRowBytes + 16 * (quad ^ row % 2 * 4);
  }
};

/** Copies a warp's spans, task by task. */
template <int kBits, int kTiles, int kRows>
struct BatchLoader {
  using Place = BatchStage<kBits, kTiles, kRows>;
  using Task = RowTask<kTiles, kRows>;
  static constexpr int kParamQuads = kParamBytes / 16;
  static constexpr int kQuads = Place::kCodeBytes / 16;
  const Multiply& args;
  int spans;
  int tasks;
  int task;
  int span;
  int rows_left; // of the task
  const char* codes[kTiles]; // of the lane
  const char* params;
  const char* digits;
  const char* sums;

  __device__ __forceinline__ BatchLoader(const Multiply& of)
      : args(of),
        spans(spans_of(of.in)),
        tasks(Task::count(of)),
        task(blockIdx.x) {
    begin();
  }
  __device__ __forceinline__ void begin() {
    const int lane = threadIdx.x % 32;
    span = static_cast<int>(threadIdx.x) / 32;
    if (task >= tasks || span >= spans) {
      task = tasks; // fewer spans than warps
      return;
    }
    const Task of(args, task);
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      const bool is_up = args.is_gated && r >= kTiles / 2;
      const MultiplyPart& part = args.parts[is_up ? 1 : of.part];
      // A tile behind the last is computed again and not written.
      const int tile =
          min(of.tile + (is_up ? r - kTiles / 2 : r), tiles_of(part.out) - 1);
      const std::int64_t at = static_cast<std::int64_t>(tile) * spans + span;
      codes[r] = reinterpret_cast<const char*>(part.weight) +
          at * Place::kCodeBytes + 16 * lane;
      if (lane / kParamQuads == r) {
        params = reinterpret_cast<const char*>(part.params) + at * kParamBytes +
            16 * (lane % kParamQuads);
      }
    }
    const std::int64_t columns =
        static_cast<std::int64_t>(spans) * kSpanColumns;
    const int first = of.row_block * kRows;
    rows_left = args.rows - first;
    digits = reinterpret_cast<const char*>(
                 args.digits + (first + lane / 16) * columns) +
        span * kRowBytes + 16 * (lane % 16);
    sums = reinterpret_cast<const char*>(
               args.sums + (first + lane) * (columns / kChunkColumns)) +
        16 * span;
  }
  __device__ __forceinline__ void load_weights(char* stage) const {
    if (task >= tasks) {
      return;
    }
    const int lane = threadIdx.x % 32;
    char* to = stage + Place::kTilesAt;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
#pragma unroll
      for (int i = 0; i < kQuads; i += kLanes) {
        if (i + kLanes <= kQuads || i + lane < kQuads) {
          const int quad = Stage<kBits>::place_of(i + lane);
          copy16(to + r * Place::kTileBytes + 16 * quad, codes[r] + 16 * i);
        }
      }
    }
    if (lane < kTiles * kParamQuads) {
      copy16(
          to + lane / kParamQuads * Place::kTileBytes + Place::kCodeBytes +
              16 * (lane % kParamQuads),
          params);
    }
  }
  /** What rows there are not is left as it is, and what comes of it is not
   * written. (Lanes that copy the same bytes wait for each other.) */
  __device__ __forceinline__ void load_rows(char* stage) const {
    if (task >= tasks) {
      return;
    }
    const int lane = threadIdx.x % 32;
    const std::int64_t row_bytes = std::int64_t{spans} * kRowBytes;
    const char* from = digits;
#pragma unroll
    for (int row = 0; row < kRows; row += 2) {
      if (row + lane / 16 < rows_left) {
        copy16(stage + Place::place_of(row + lane / 16, lane % 16), from);
      }
      from += 2 * row_bytes;
    }
    if (lane < kRows && lane < rows_left) {
      copy16(stage + Place::kSumsAt + 16 * lane, sums);
    }
  }
  __device__ __forceinline__ void move() {
    if (task >= tasks) {
      return;
    }
    span += kWarps;
    if (span >= spans) {
      task += static_cast<int>(gridDim.x);
      begin();
      return;
    }
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      codes[r] += kWarps * Place::kCodeBytes;
    }
    params += kWarps * kParamBytes;
    digits += kWarps * kRowBytes;
    sums += kWarps * 16;
  }
};

/** A lane's share of the rows in half a span. */
template <int kBits, int kTiles, int kRows>
struct BatchRows {
  static constexpr int kTokenTiles = kRows / 8;
  using Place = BatchStage<kBits, kTiles, kRows>;
  uint4 digits[2][kTokenTiles]; // of its two chunks of columns
  float2 sums[kTokenTiles]; // of the rows whose results the lane has

  __device__ __forceinline__ BatchRows(const char* stage, int half) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int chunk = 0; chunk < 2; ++chunk) {
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
        const int quad = (2 * half + chunk) * 4 + lane % 4;
        digits[chunk][n] = *reinterpret_cast<const uint4*>(
            stage + Place::place_of(n * 8 + lane / 4, quad));
      }
    }
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
      const auto* of = reinterpret_cast<const float*>(
          stage + Place::kSumsAt + (n * 8 + lane % 4 * 2) * 16 + 8 * half);
      sums[n] = make_float2(of[0] + of[1], of[4] + of[5]);
    }
  }
};

/** acc += what a span comes to: in the order of multiply_span. */
template <int kBits, int kTiles, int kRows>
__device__ __forceinline__ void multiply_stage(
    const char* stage,
    float (&acc)[kTiles][kRows / 8][4]) {
  constexpr int kTokenTiles = kRows / 8;
  using Place = BatchStage<kBits, kTiles, kRows>;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const BatchRows<kBits, kTiles, kRows> x(stage, half);
#pragma unroll
    for (int first = 0; first < kTiles; first += kAtOnce) {
      Weights<kBits, false> weights[kAtOnce];
      float sums[kAtOnce][kTokenTiles][4] = {};
#pragma unroll
      for (int r = 0; r < kAtOnce; ++r) {
        const char* tile =
            stage + Place::kTilesAt + (first + r) * Place::kTileBytes;
        weights[r].template read<Stage<kBits>>(
            {tile, tile + Place::kCodeBytes}, 2);
      }
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        std::uint32_t a[kAtOnce][4];
#pragma unroll
        for (int r = 0; r < kAtOnce; ++r) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            a[r][i] = weights[r].operand(i % 2, 8 * half + 2 * step + i / 2);
          }
        }
#pragma unroll
        for (int n = 0; n < kTokenTiles; ++n) {
          const uint4& v = x.digits[step / 2][n];
          const std::uint32_t b0 = step % 2 == 0 ? v.x : v.z;
          const std::uint32_t b1 = step % 2 == 0 ? v.y : v.w;
#pragma unroll
          for (int r = 0; r < kAtOnce; ++r) {
            mma_f16(sums[r][n], a[r][0], a[r][1], a[r][2], a[r][3], b0, b1);
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kAtOnce; ++r) {
        const uint2(&params)[2] = weights[r].params;
        const std::uint32_t of_half[2] = {
            half == 0 ? params[0].x : params[0].y,
            half == 0 ? params[1].x : params[1].y};
#pragma unroll
        for (int n = 0; n < kTokenTiles; ++n) {
          end_group<false>(
              of_half,
              UsualGroups::type,
              x.sums[n],
              sums[r][n],
              acc[first + r][n]);
        }
      }
    }
  }
}

template <int kStages>
__device__ __forceinline__ int stage_after(int at) {
  return kStages == 2 ? at ^ 1 : at + 1 == kStages ? 0 : at + 1;
}
template <int kStages>
__device__ __forceinline__ int stage_before(int at) {
  return kStages == 2 ? at ^ 1 : at == 0 ? kStages - 1 : at - 1;
}

/** In which of its stages each warp leaves its sums of a task: the last one
 * that it has multiplied. The first warps have one span more than the others.
 */
template <int kStages>
struct FreeStages {
  int each; // spans of the others
  int n_more; // warps
  int of_more = kStages - 1;
  int of_others = kStages - 1;

  __device__ __forceinline__ explicit FreeStages(int spans)
      : each(spans / kWarps), n_more(spans % kWarps) {}
  __device__ __forceinline__ void end_task() {
    of_more = (of_more + each + 1) % kStages;
    of_others = (of_others + each) % kStages;
  }
  __device__ __forceinline__ int of_warp(int warp) const {
    return warp < n_more ? of_more : of_others;
  }
};
/** Of two stages, in bits: with counters ptxas took the stack for 32 rows of
 * 4-bit codes. */
template <>
struct FreeStages<2> {
  unsigned changes = 0; // of warps that have an odd number of spans of a task
  unsigned second = (1u << kWarps) - 1; // of a warp

  __device__ __forceinline__ explicit FreeStages(int spans) {
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      changes |= static_cast<unsigned>((spans - w + kWarps - 1) / kWarps % 2)
          << w;
    }
  }
  __device__ __forceinline__ void end_task() {
    second ^= changes;
  }
  __device__ __forceinline__ int of_warp(int warp) const {
    return static_cast<int>(second >> warp & 1);
  }
};

/** The sums of a task that the eight warps have, each in one of its stages. */
template <int kBits, int kTiles, int kRows>
struct BatchSums {
  using Place = BatchStage<kBits, kTiles, kRows>;
  using Sums = Partial<kRows, kTiles>;
  static_assert(sizeof(Sums) <= Place::kBytes);
  const char* memory;
  FreeStages<Place::kStages> stages;
  const RowScales (&scales)[kRows];

  __device__ __forceinline__ float at(int row, int output) const {
    const RowScales& scale = scales[row];
    float y = 0.f;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      const int stage = Place::kStages * warp + stages.of_warp(warp);
      const auto* of =
          reinterpret_cast<const Sums*>(memory + stage * Place::kBytes);
      y = fmaf(of->values[row][output], scale.shares[warp], y);
    }
    return __fmul_rn(y, scale.factor);
  }
};

/** What comes of a task: an output of several rows for each thread. */
template <int kBits, int kTiles, int kRows, bool kGated>
__device__ __forceinline__ void finish_batch(
    const Multiply& args,
    const RowTask<kTiles, kRows>& task,
    const BatchSums<kBits, kTiles, kRows>& sums) {
  constexpr int kOutputs = kTiles * kTileRows / (kGated ? 2 : 1);
  constexpr int kRowsAtOnce = kThreads / kOutputs;
  constexpr int kEach = kRows / kRowsAtOnce;
  static_assert(kEach * kRowsAtOnce == kRows);
  const int output = static_cast<int>(threadIdx.x) % kOutputs;
  const int at = task.tile * kTileRows + output;
  const MultiplyPart& part = args.parts[task.part];
  const MultiplyPart& of_up = args.parts[1];
  if (at >= part.out) {
    return;
  }
  const int first = static_cast<int>(threadIdx.x) / kOutputs;
  const long long first_row = task.row_block * kRows;
  // All is asked for before anything is written, which might be what is read.
  const float bias = part.bias != nullptr ? part.bias[at] : 0.f;
  const float up_bias = kGated && of_up.bias != nullptr ? of_up.bias[at] : 0.f;
  const bool has_residual = !kGated && part.residual != nullptr;
  float residual[kEach];
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const long long row = first_row + first + k * kRowsAtOnce;
    residual[k] = row < args.rows && has_residual
        ? part.residual[row * part.out + at]
        : 0.f;
  }
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const int row = first + k * kRowsAtOnce;
    if (first_row + row >= args.rows) {
      break;
    }
    const float y = sums.at(row, output) + bias;
    const long long to = (first_row + row) * part.out + at;
    if constexpr (kGated) {
      const float up = sums.at(row, kOutputs + output) + up_bias;
      of_up.y[to] =
          (args.activation == Elementwise::Silu ? silu(y) : gelu_tanh(y)) * up;
    } else {
      part.y[to] = has_residual ? residual[k] + y : y;
    }
  }
}

template <int kBits, int kTiles, int kRows>
__device__ __forceinline__ void multiply_batch(const Multiply& args) {
  using Place = BatchStage<kBits, kTiles, kRows>;
  using Loader = BatchLoader<kBits, kTiles, kRows>;
  using Task = RowTask<kTiles, kRows>;
  using Sums = BatchSums<kBits, kTiles, kRows>;
  constexpr int kStages = Place::kStages;
  extern __shared__ uint4 batch_memory[];
  __shared__ RowScales scales[kRows];
  auto* memory = reinterpret_cast<char*>(batch_memory);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  char* ring = memory + warp * kStages * Place::kBytes;
  allow_next();
  Loader loader(args);
  {
    Loader ahead = loader;
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) {
      ahead.load_weights(ring + i * Place::kBytes);
      ahead.move();
    }
  }
  await_previous();
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) {
    loader.load_rows(ring + i * Place::kBytes);
    end_copies();
    loader.move();
  }
  const int spans = spans_of(args.in);
  FreeStages<kStages> free_stages(spans);
  int at = 0; // the stage in hand
  for (int index = blockIdx.x; index < Task::count(args);
       index += static_cast<int>(gridDim.x)) {
    const Task task(args, index);
    float acc[kTiles][kRows / 8][4] = {};
    for (int span = warp; span < spans; span += kWarps) {
      await_copies<kStages - 2>();
      __syncwarp(); // other lanes' copies are there, the free stage is read
      char* next = ring + stage_before<kStages>(at) * Place::kBytes;
      loader.load_weights(next);
      loader.load_rows(next);
      end_copies();
      loader.move();
      multiply_stage<kBits, kTiles, kRows>(ring + at * Place::kBytes, acc);
      at = stage_after<kStages>(at);
    }
    __syncwarp();
    reinterpret_cast<typename Sums::Sums*>(
        ring + stage_before<kStages>(at) * Place::kBytes)
        ->write(acc, kRows, threadIdx.x % 32);
    free_stages.end_task();
    if (index == static_cast<int>(blockIdx.x) || args.rows > kRows) {
      const int row = task.row_block * kRows + static_cast<int>(threadIdx.x);
      if (threadIdx.x < kRows && row < args.rows) {
        scales[threadIdx.x] = args.row_scales[row];
      }
    }
    __syncthreads();
    const Sums sums{memory, free_stages, scales};
    if (args.is_gated) {
      finish_batch<kBits, kTiles, kRows, true>(args, task, sums);
    } else {
      finish_batch<kBits, kTiles, kRows, false>(args, task, sums);
    }
    __syncthreads(); // sums are read
  }
}

} // namespace

#define OPTIQ_MULTIPLY_BATCH(BITS, TILES, ROWS)             \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) \
      multiply_##BITS##bit_fast_batch##ROWS##_##TILES(      \
          const __grid_constant__ Multiply args) {          \
    multiply_batch<BITS, TILES, ROWS>(args);                \
  }
#define OPTIQ_MULTIPLY_BATCHES(BITS, TILES) \
  OPTIQ_MULTIPLY_BATCH(BITS, TILES, 16)     \
  OPTIQ_MULTIPLY_BATCH(BITS, TILES, 32)

OPTIQ_MULTIPLY_BATCHES(2, 2)
OPTIQ_MULTIPLY_BATCHES(3, 2)
OPTIQ_MULTIPLY_BATCHES(4, 2)
OPTIQ_MULTIPLY_BATCHES(5, 2)
OPTIQ_MULTIPLY_BATCHES(6, 2)
OPTIQ_MULTIPLY_BATCHES(8, 2)
// Where they fit into shared memory and registers (batch_most_tiles).
OPTIQ_MULTIPLY_BATCHES(4, 4)
OPTIQ_MULTIPLY_BATCHES(5, 4)

} // namespace optiq::kernels::cuda
