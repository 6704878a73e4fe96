// Fast products of many rows on warp groups (compute capability 9.0). A task is
// 128 rows of x and twice or four times 64 outputs, for two warp groups: W is
// the A operand of wgmma.m64n128k16, from registers, x its B operand, from
// shared memory. One more warp keeps a ring of spans filled, across the tasks
// that the block of threads goes through.
//
// Weights are rounded to float16 as rows are, times a power of two that keeps
// them below 2^15 (MatrixData::factor), so that sums stay on the tensor cores:
//
//   y[t][o] = scale[t] / factor * sum over columns: float16(factor (s q + b)) x
//
// The order of the sums is that of columns: a row's bits depend on the row
// alone, and not on how large tasks are.
//
// Gated, a warp's first eight rows of A are outputs of the gate and its last
// eight the same ones of up, so that a lane has both.
#include "optiq/kernels/cuda/device/wide_task.cuh"

namespace optiq::kernels::cuda {

namespace {

/** A span in shared memory. Operands begin at multiples of 1024. */
template <int kBits, int kWidth>
struct alignas(1024) FastStage {
  static constexpr int kTiles = 4 * kWidth;
  static constexpr int kBytes =
      kHalves * kTokens * kWideColumns * 2 + kTiles * (256 * kBits + 128);
  std::uint16_t digits[kHalves][kTokens][kWideColumns];
  std::uint32_t codes[kTiles][kLanes * 2 * kBits];
  std::uint32_t params[kTiles][kTileRows * kHalves];
};

template <int kBits, int kWidth>
struct FastMemory {
  static constexpr int kStages = wide_fast_stages(kBits, kWidth);
  FastStage<kBits, kWidth> stages[kStages];
  std::uint64_t full[kStages];
  std::uint64_t empty[kStages];
};

/** One warp: copies span after span, of task after task. */
template <int kBits, int kWidth>
__device__ __forceinline__ void fill_ring(
    const Multiply& args,
    FastMemory<kBits, kWidth>& memory) {
  using Stage = FastStage<kBits, kWidth>;
  constexpr int kTiles = Stage::kTiles;
  const int lane = threadIdx.x % 32;
  const int spans = spans_of(args.in);
  const std::int64_t columns = static_cast<std::int64_t>(spans) * kSpanColumns;
  RingPlace<FastMemory<kBits, kWidth>::kStages> place;
  for (int index = blockIdx.x; index < WideTask<kWidth>::count(args);
       index += static_cast<int>(gridDim.x)) {
    const WideTask<kWidth> task(args, index);
    const bool is_up = args.is_gated && lane >= kTiles / 2;
    const MultiplyPart& part = args.parts[is_up ? 1 : task.part];
    // A tile behind the last is computed again and not written.
    const std::int64_t tile = min(
        task.tile + (is_up ? lane - kTiles / 2 : lane), tiles_of(part.out) - 1);
    const std::uint32_t* codes =
        part.weight + tile * spans * (kLanes * 2 * kBits);
    const std::uint32_t* params =
        part.params + tile * spans * (kTileRows * kHalves);
    const std::uint16_t* digits =
        args.digits + task.row_block * kTokens * columns;
    for (int span = 0; span < spans; ++span) {
      Stage& stage = memory.stages[place.at];
      std::uint64_t& full = memory.full[place.at];
      await_barrier(memory.empty[place.at], place.parity ^ 1);
      if (lane == 0) {
        arrive_expecting(full, Stage::kBytes);
      }
      __syncwarp();
      if (lane < kTiles) {
        copy_bulk(stage.codes[lane], codes, sizeof(stage.codes[0]), full);
        copy_bulk(stage.params[lane], params, sizeof(stage.params[0]), full);
      } else if (lane == kTiles) {
        copy_bulk(stage.digits, digits, sizeof(stage.digits), full);
      }
      codes += kLanes * 2 * kBits;
      params += kTileRows * kHalves;
      digits += kTokens * kSpanColumns;
      place.move();
    }
  }
}

/** Which of a stage's rows are a lane's row 0 and row 1 of an operand. */
struct LaneRows {
  int tile[2];
  int row[2]; // of the tile, 0 to 15

  /** Of the operands of a task, which have 16 rows each. */
  __device__ __forceinline__ LaneRows(int operand, bool is_gated, int tiles) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      tile[i] = is_gated ? operand / 2 + i * (tiles / 2) : operand;
      row[i] = row_of(lane, is_gated ? operand % 2 : i);
    }
  }
};

template <int kBits, int kWidth>
__device__ __forceinline__ void read_weights(
    const FastStage<kBits, kWidth>& stage,
    const LaneRows& rows,
    Weights<kBits, true>& to) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int half = rows.row[i] / 8;
    const std::uint32_t* words =
        stage.codes[rows.tile[i]] + (2 * lane + half) * kBits;
#pragma unroll
    for (int k = 0; k < kBits;) {
      if constexpr (kBits % 4 == 0) {
        const uint4 v = *reinterpret_cast<const uint4*>(words + k);
        to.words[i][k++] = v.x;
        to.words[i][k++] = v.y;
        to.words[i][k++] = v.z;
        to.words[i][k++] = v.w;
      } else if constexpr (kBits % 2 == 0) {
        const uint2 v = *reinterpret_cast<const uint2*>(words + k);
        to.words[i][k++] = v.x;
        to.words[i][k++] = v.y;
      } else {
        to.words[i][k] = words[k];
        ++k;
      }
    }
    to.params[i] = *reinterpret_cast<const uint2*>(
        stage.params[rows.tile[i]] + rows.row[i] * kHalves);
  }
}

/** The A operands of half a span, four steps of 16 columns: what codes stand
 * for, times the factor. */
template <int kBits>
__device__ __forceinline__ void operands_of(
    const Weights<kBits, true>& weights,
    int half,
    Number type,
    float factor,
    std::uint32_t (&a)[4][4]) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const uint2 both = weights.params[row];
    const float2 param = param_pair(half == 0 ? both.x : both.y, type);
    const __half2 scale = __float2half2_rn(param.x * factor);
    const __half2 bias = __float2half2_rn(param.y * factor);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const std::uint32_t codes =
            weights.operand(row, 8 * half + 2 * step + k);
        const __half2 w =
            __hfma2(*reinterpret_cast<const __half2*>(&codes), scale, bias);
        a[step][2 * k + row] = *reinterpret_cast<const std::uint32_t*>(&w);
      }
    }
  }
}

/** Sums of a task: half a span is multiplied while the next one's weights are
 * unpacked. */
template <int kBits, int kWidth>
__device__ __forceinline__ void multiply_spans(
    const Multiply& args,
    const MultiplyPart& part,
    FastMemory<kBits, kWidth>& memory,
    RingPlace<FastMemory<kBits, kWidth>::kStages>& place,
    float (&acc)[WideShape<kWidth>::kEach][64]) {
  using Shape = WideShape<kWidth>;
  constexpr int kEach = Shape::kEach;
  const int warp = threadIdx.x / 32;
  const int spans = spans_of(args.in);
  const Number type = part.param_type;
  const float factor = part.factor;
  std::uint32_t operands[2][4][4]; // one is read while the other is made
  // The barrier of the span before. Every lane arrives: one for all would need
  // a sync of the warp, and ptxas would run products one after the other.
  std::uint64_t* last = nullptr;
#pragma unroll 1
  for (int span = 0; span < spans; ++span) {
    const auto& stage = memory.stages[place.at];
    await_barrier(memory.full[place.at], place.parity);
    Weights<kBits, true> weights[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int operand = i * 4 * Shape::kGroups + warp;
      read_weights(
          stage, LaneRows(operand, args.is_gated, 4 * kWidth), weights[i]);
    }
#pragma unroll
    for (int step = 0; step < kHalves * kEach; ++step) {
      const int half = step / kEach;
      const int i = step % kEach;
      await_products<1>(); // who read this one's operands
      if (step == 1 && last != nullptr) {
        arrive(*last);
      }
      operands_of(weights[i], half, type, factor, operands[step % 2]);
      start_products(stage.digits[half], operands[step % 2], acc[i]);
    }
    last = &memory.empty[place.at];
    place.move();
  }
  await_products<0>();
  arrive(*last);
}

/** y = activation(gate) up. */
template <int kSums>
__device__ __forceinline__ void write_gated(
    const Multiply& args,
    int token,
    int output,
    const float (&acc)[kSums]) {
  const MultiplyPart& of_gate = args.parts[0];
  const MultiplyPart& of_up = args.parts[1];
  if (output >= of_up.out) {
    return;
  }
  const float more = inverse_scale(of_up.factor) * of_gate.factor;
  const float gate_bias = of_gate.bias != nullptr ? of_gate.bias[output] : 0.f;
  const float up_bias = of_up.bias != nullptr ? of_up.bias[output] : 0.f;
#pragma unroll
  for (int j = 0; j < kTokens / 8; j += kEightsAtOnce) {
    float scales[kEightsAtOnce][2];
    read_scales(args, token + 8 * j, inverse_scale(of_gate.factor), scales);
#pragma unroll
    for (int k = 0; k < kEightsAtOnce; ++k) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = token + 8 * (j + k) + i;
        const float* sums = acc + 4 * (j + k) + i;
        const float gate = fmaf(sums[0], scales[k][i], gate_bias);
        const float up = fmaf(sums[2], scales[k][i] * more, up_bias);
        const float activated =
            args.activation == Elementwise::Silu ? silu(gate) : gelu_tanh(gate);
        if (row < args.rows) {
          of_up.y[static_cast<long long>(row) * of_up.out + output] =
              activated * up;
        }
      }
    }
  }
}

/** What the warps that multiply do. */
template <int kBits, int kWidth>
__device__ __forceinline__ void multiply_tasks(
    const Multiply& args,
    FastMemory<kBits, kWidth>& memory) {
  using Shape = WideShape<kWidth>;
  constexpr int kEach = Shape::kEach;
  const int warp = threadIdx.x / 32;
  RingPlace<FastMemory<kBits, kWidth>::kStages> place;
  for (int index = blockIdx.x; index < WideTask<kWidth>::count(args);
       index += static_cast<int>(gridDim.x)) {
    const WideTask<kWidth> task(args, index);
    const MultiplyPart& part = args.parts[task.part];
    float acc[kEach][64] = {};
    multiply_spans(args, part, memory, place, acc);
    const int token =
        task.row_block * kTokens + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int operand = i * 4 * Shape::kGroups + warp;
      const LaneRows rows(operand, args.is_gated, 4 * kWidth);
      const int output = (task.tile + rows.tile[0]) * kTileRows + rows.row[0];
      if (args.is_gated) {
        write_gated(args, token, output, acc[i]);
      } else {
        write_outputs(
            args, part, token, output, inverse_scale(part.factor), acc[i]);
      }
    }
  }
}

template <int kBits, int kWidth>
__device__ __forceinline__ void multiply_wide_fast(const Multiply& args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Memory = FastMemory<kBits, kWidth>;
  using Shape = WideShape<kWidth>;
  static_assert(sizeof(Memory) <= wide_fast_bytes(kBits, kWidth));
  extern __shared__ __align__(1024) unsigned char wide_memory[];
  auto& memory = *reinterpret_cast<Memory*>(wide_memory);
  allow_next();
  if (threadIdx.x == 0) {
    make_ring(memory, 128 * Shape::kGroups);
  }
  __syncthreads();
  await_previous();
  if (threadIdx.x / 128 == Shape::kGroups) {
    keep_registers<Shape::kFewRegisters>();
    if (threadIdx.x / 32 == 4 * Shape::kGroups) {
      fill_ring(args, memory);
    }
  } else {
    take_registers<Shape::kManyRegisters>();
    multiply_tasks(args, memory);
  }
#endif
}

} // namespace

#define OPTIQ_MULTIPLY_WIDE_FAST(BITS, WIDTH)                       \
  extern "C" __global__ void __launch_bounds__(kWideTaskThreads, 1) \
      multiply_##BITS##bit_fast_wide##WIDTH(                        \
          const __grid_constant__ Multiply args) {                  \
    multiply_wide_fast<BITS, WIDTH>(args);                          \
  }

#define OPTIQ_MULTIPLY_WIDE_FAST_WIDTHS(WIDTH) \
  OPTIQ_MULTIPLY_WIDE_FAST(2, WIDTH)           \
  OPTIQ_MULTIPLY_WIDE_FAST(3, WIDTH)           \
  OPTIQ_MULTIPLY_WIDE_FAST(4, WIDTH)           \
  OPTIQ_MULTIPLY_WIDE_FAST(5, WIDTH)           \
  OPTIQ_MULTIPLY_WIDE_FAST(6, WIDTH)           \
  OPTIQ_MULTIPLY_WIDE_FAST(8, WIDTH)

OPTIQ_MULTIPLY_WIDE_FAST_WIDTHS(2)
OPTIQ_MULTIPLY_WIDE_FAST_WIDTHS(4)

} // namespace optiq::kernels::cuda
