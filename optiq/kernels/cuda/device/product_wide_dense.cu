// Products of many rows with dense weights on warp groups (compute capability
// 9.0; wide_task.cuh). Rows are in float16 digits, two for exact
// (wide_layout.h), weights float16 times a power of two (MatrixData::unit):
//
//   y[t][o] = scale[t] unit * sum over columns: w x
//
// A warp's weights are its own: they come from memory half a span ahead, in the
// order of operands, and one warp keeps a ring of rows' half spans filled.
// Exact sums leave the tensor cores, which cut off what they add, after every
// span; the order of the sums is that of columns, whatever the size of tasks.
#include "optiq/kernels/cuda/device/wide_task.cuh"

namespace optiq::kernels::cuda {
namespace {

template <bool kExact>
struct DenseMemory {
  static constexpr int kDigits = kExact ? 2 : 1;
  static constexpr int kStages = wide_dense_stages(kExact);
  // Half a span. Operands begin at multiples of 1024.
  alignas(1024) std::uint16_t digits[kStages][kDigits][kTokens][kWideColumns];
  std::uint64_t full[kStages];
  std::uint64_t empty[kStages];
};

/** One warp: copies half a span after the other, of task after task. */
template <bool kExact, int kWidth>
__device__ __forceinline__ void fill_ring(
    const Multiply& args,
    DenseMemory<kExact>& memory) {
  using Memory = DenseMemory<kExact>;
  const int lane = threadIdx.x % 32;
  const std::int64_t columns = padded_columns(args.in);
  const int row_blocks = (args.rows + kTokens - 1) / kTokens;
  const std::int64_t digit_stride = row_blocks * kTokens * columns;
  RingPlace<Memory::kStages> place;
  for (int index = blockIdx.x; index < WideTask<kWidth>::count(args);
       index += static_cast<int>(gridDim.x)) {
    const WideTask<kWidth> task(args, index);
    const std::uint16_t* digits =
        args.digits + lane * digit_stride + task.row_block * kTokens * columns;
    for (int column = 0; column < columns; column += kWideColumns) {
      std::uint64_t& full = memory.full[place.at];
      await_barrier(memory.empty[place.at], place.parity ^ 1);
      if (lane == 0) {
        arrive_expecting(full, sizeof(memory.digits[0]));
      }
      __syncwarp();
      if (lane < Memory::kDigits) {
        copy_bulk(
            memory.digits[place.at][lane],
            digits,
            sizeof(memory.digits[0][0]),
            full);
      }
      digits += kTokens * kWideColumns;
      place.move();
    }
  }
}

/** A lane's weights of 16 outputs and half a span: eight of each of two chunks
 * of 32 columns. */
struct DenseWeights {
  uint4 words[2][kHalves];
  int column; // of the first chunk's

  /** Of outputs from `first` on, and columns from `from` on. Outputs behind the
   * last are the last one's, and not written. */
  __device__ __forceinline__ void
  load(const MultiplyPart& part, int in, int first, int from) {
    const int lane = threadIdx.x % 32;
    const auto* weight = reinterpret_cast<const std::uint16_t*>(part.weight);
    column = from + column_of(lane, 0);
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int output = min(first + row_of(lane, row), part.out - 1);
#pragma unroll
      for (int chunk = 0; chunk < 2; ++chunk) {
        const int at = min(column + chunk * kChunkColumns, in - 8);
        words[row][chunk] =
            stream4(weight + static_cast<std::int64_t>(output) * in + at);
      }
    }
  }
  /** Four steps of 16 columns; behind the last column zeros. That is done here,
   * and not by `load`, so that operands are not the registers that are loaded:
   * then ptxas would run products one after the other (its remark C7513). */
  __device__ __forceinline__ void write_operands(
      int in,
      std::uint32_t (&a)[4][4]) const {
#pragma unroll
    for (int chunk = 0; chunk < 2; ++chunk) {
      const std::uint32_t mask =
          column + chunk * kChunkColumns < in ? 0xffffffffu : 0u;
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const uint4& v = words[row][chunk];
        a[2 * chunk][row] = v.x & mask;
        a[2 * chunk][2 + row] = v.y & mask;
        a[2 * chunk + 1][row] = v.z & mask;
        a[2 * chunk + 1][2 + row] = v.w & mask;
      }
    }
  }
};

/** A warp's sums of a task, [operands]; exact, those of a span beside them. */
template <bool kExact, int kWidth>
struct DenseSums {
  static constexpr int kEach = WideShape<kWidth>::kEach;
  float all[kEach][64] = {};
  float of_span[kExact ? 64 : 1] = {};

  __device__ __forceinline__ void end_span() {
    if constexpr (kExact) {
#pragma unroll
      for (int i = 0; i < 64; ++i) {
        all[0][i] += of_span[i];
      }
    }
  }
};

/** Sums of a task: half a span is multiplied while the next one's weights are
 * made operands. */
template <bool kExact, int kWidth>
__device__ __forceinline__ void multiply_halves(
    const Multiply& args,
    const MultiplyPart& part,
    int first_output,
    DenseMemory<kExact>& memory,
    RingPlace<DenseMemory<kExact>::kStages>& place,
    DenseSums<kExact, kWidth>& sums) {
  constexpr int kEach = WideShape<kWidth>::kEach;
  constexpr int kDigits = DenseMemory<kExact>::kDigits;
  static_assert(!kExact || kEach == 1);
  const int warp = threadIdx.x / 32;
  const int columns = padded_columns(args.in);
  const auto output_of = [&](int i) {
    return first_output +
        (i * 4 * WideShape<kWidth>::kGroups + warp) * kTileRows;
  };
  DenseWeights weights[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    weights[i].load(part, args.in, output_of(i), 0);
  }
  std::uint32_t operands[2][4][4]; // one is read while the other is made
  std::uint64_t* last = nullptr; // the barrier of the half before
#pragma unroll 1
  for (int span = 0; span < columns; span += kSpanColumns) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      await_barrier(memory.full[place.at], place.parity);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        auto& a = operands[(half * kEach + i) % 2];
        weights[i].write_operands(args.in, a);
        weights[i].load(
            part, args.in, output_of(i), span + (half + 1) * kWideColumns);
        if constexpr (kExact) {
          await_products<0>();
          if (half == 0) {
            sums.end_span();
          }
        }
        begin_products();
#pragma unroll
        for (int digit = 0; digit < kDigits; ++digit) {
          const std::uint64_t b = operand_of(memory.digits[place.at][digit]);
#pragma unroll
          for (int step = 0; step < 4; ++step) {
            if constexpr (kExact) {
              multiply_group(
                  sums.of_span, a[step], b + 2 * step, half + digit + step > 0);
            } else {
              multiply_group(sums.all[i], a[step], b + 2 * step, true);
            }
          }
        }
        end_products();
        if constexpr (!kExact) {
          await_products<1>(); // who read the next one's operands
        }
        if (i == 0 && last != nullptr) {
          arrive(*last);
        }
      }
      last = &memory.empty[place.at];
      place.move();
    }
  }
  await_products<0>();
  sums.end_span();
  arrive(*last);
}

/** What the warps that multiply do. */
template <bool kExact, int kWidth>
__device__ __forceinline__ void multiply_tasks(
    const Multiply& args,
    DenseMemory<kExact>& memory) {
  constexpr int kEach = WideShape<kWidth>::kEach;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  RingPlace<DenseMemory<kExact>::kStages> place;
  for (int index = blockIdx.x; index < WideTask<kWidth>::count(args);
       index += static_cast<int>(gridDim.x)) {
    const WideTask<kWidth> task(args, index);
    const MultiplyPart& part = args.parts[task.part];
    DenseSums<kExact, kWidth> sums;
    multiply_halves<kExact, kWidth>(
        args, part, task.tile * kTileRows, memory, place, sums);
    const int token = task.row_block * kTokens + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int tile = task.tile + i * 4 * WideShape<kWidth>::kGroups + warp;
      const int output = tile * kTileRows + row_of(lane, 0);
      write_outputs(args, part, token, output, part.unit, sums.all[i]);
    }
  }
}

template <bool kExact, int kWidth>
__device__ __forceinline__ void multiply_wide_dense(const Multiply& args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Memory = DenseMemory<kExact>;
  using Shape = WideShape<kWidth>;
  static_assert(sizeof(Memory) <= wide_dense_bytes(kExact));
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
      fill_ring<kExact, kWidth>(args, memory);
    }
  } else {
    take_registers<Shape::kManyRegisters>();
    multiply_tasks<kExact, kWidth>(args, memory);
  }
#endif
}

} // namespace

#define OPTIQ_MULTIPLY_WIDE_DENSE(NAME, EXACT, WIDTH)               \
  extern "C" __global__ void __launch_bounds__(kWideTaskThreads, 1) \
      multiply_16bit_##NAME##_wide##WIDTH(                          \
          const __grid_constant__ Multiply args) {                  \
    multiply_wide_dense<EXACT, WIDTH>(args);                        \
  }

OPTIQ_MULTIPLY_WIDE_DENSE(exact, true, 2)
OPTIQ_MULTIPLY_WIDE_DENSE(fast, false, 2)
OPTIQ_MULTIPLY_WIDE_DENSE(fast, false, 4)

} // namespace optiq::kernels::cuda
