// Exact products of many rows on warp groups (compute capability 9.0). A block
// of threads has 128 outputs and 128 rows of x: eight warps have 16 outputs
// each, W is the A operand of wgmma.m64n128k16, from registers, x its B
// operand, from shared memory. A ninth warp keeps a ring of spans filled.
//
// As in product.cu codes are exact integers and sums of a group float32, scaled
// as it ends:
//
//   y[t][o] = scale[t] * sum over groups: s (sum q x) + b (sum x)
//
// A row's bits depend on the row alone.
#include "optiq/kernels/cuda/device/hopper.cuh"
#include "optiq/kernels/cuda/device/product_sums.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr int kHalves = 2; // of a span: 64 columns
constexpr int kDigits = 2;
constexpr int kTokens = kWideRows;

/** A span in shared memory. Copies and operands begin at multiples of 1024. */
template <int kBits>
struct WideStage {
  std::uint16_t digits[kDigits][kHalves][kTokens][kWideColumns];
  std::uint32_t codes[kWideTiles][kLanes * 2 * kBits];
  std::uint32_t params[kWideTiles][kTileRows * kHalves];
  float sums[kHalves][kTokens];
};

template <int kBits>
struct WideMemory {
  static constexpr int kStages = kWideStages;
  alignas(1024) WideStage<kBits> stages[kStages];
  std::uint64_t full[kStages];
  std::uint64_t empty[kStages];
};

/** Which outputs of which part a block has. */
struct WidePlace {
  int part = 0;
  int tile; // the first of kWideTiles

  __device__ __forceinline__ explicit WidePlace(const Multiply& args) {
    const auto block = static_cast<int>(blockIdx.y);
    int first = 0;
#pragma unroll
    for (int i = 1; i < kMostParts; ++i) {
      if (i < args.n_parts && block >= args.parts[i].first_block) {
        part = i;
        first = args.parts[i].first_block;
      }
    }
    tile = (block - first) * kWideTiles;
  }
};

/** The ninth warp: copies span after span. */
template <int kBits>
__device__ __forceinline__ void fill_ring(
    const Multiply& args,
    WideMemory<kBits>& memory) {
  using Memory = WideMemory<kBits>;
  using Stage = WideStage<kBits>;
  const int lane = threadIdx.x % 32;
  const int spans = spans_of(args.in);
  const WidePlace place(args);
  const MultiplyPart& part = args.parts[place.part];
  // A tile behind the last is computed again and not written.
  const std::int64_t tile = min(place.tile + lane, tiles_of(part.out) - 1);
  const std::uint32_t* codes =
      part.weight + tile * spans * (kLanes * 2 * kBits);
  const std::uint32_t* params =
      part.params + tile * spans * (kTileRows * kHalves);
  const std::int64_t columns = static_cast<std::int64_t>(spans) * kSpanColumns;
  const std::uint16_t* digits = args.digits + blockIdx.x * kTokens * columns;
  const std::int64_t digit_stride = gridDim.x * kTokens * columns;
  const float* sums =
      args.sums + blockIdx.x * kTokens * (columns / kWideColumns);
  for (int span = 0; span < spans; ++span) {
    const int at = span % Memory::kStages;
    Stage& stage = memory.stages[at];
    std::uint64_t& full = memory.full[at];
    await_barrier(memory.empty[at], span / Memory::kStages % 2 ^ 1);
    if (lane == 0) {
      arrive_expecting(full, sizeof(Stage));
    }
    __syncwarp();
    if (lane < kWideTiles) {
      copy_bulk(
          stage.codes[lane],
          codes + static_cast<std::int64_t>(span) * kLanes * 2 * kBits,
          sizeof(stage.codes[0]),
          full);
      copy_bulk(
          stage.params[lane],
          params + static_cast<std::int64_t>(span) * kTileRows * kHalves,
          sizeof(stage.params[0]),
          full);
    } else if (lane < kWideTiles + kDigits) {
      const int digit = lane - kWideTiles;
      copy_bulk(
          stage.digits[digit],
          digits + digit * digit_stride +
              static_cast<std::int64_t>(span) * kTokens * kSpanColumns,
          sizeof(stage.digits[0]),
          full);
    } else if (lane == kWideTiles + kDigits) {
      copy_bulk(
          stage.sums,
          sums + static_cast<std::int64_t>(span) * kTokens * kHalves,
          sizeof(stage.sums),
          full);
    }
  }
}

/** A lane's share of a warp's 16 outputs in a stage. */
template <int kBits>
__device__ __forceinline__ void read_weights(
    const WideStage<kBits>& stage,
    int warp,
    Weights<kBits, true>& to) {
  const int lane = threadIdx.x % 32;
  const std::uint32_t* words = stage.codes[warp] + lane * 2 * kBits;
  std::uint32_t* flat = to.words[0];
#pragma unroll
  for (int i = 0; i < 2 * kBits; i += kBits % 2 == 0 ? 4 : 2) {
    if constexpr (kBits % 2 == 0) {
      const uint4 v = *reinterpret_cast<const uint4*>(words + i);
      flat[i] = v.x;
      flat[i + 1] = v.y;
      flat[i + 2] = v.z;
      flat[i + 3] = v.w;
    } else {
      const uint2 v = *reinterpret_cast<const uint2*>(words + i);
      flat[i] = v.x;
      flat[i + 1] = v.y;
    }
  }
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    to.params[row] = *reinterpret_cast<const uint2*>(
        stage.params[warp] + row_of(lane, row) * kHalves);
  }
}

/** The A operands of half a span: four steps of 16 columns. */
template <int kBits>
__device__ __forceinline__ void operands_of(
    const Weights<kBits, true>& weights,
    int half,
    std::uint32_t (&a)[4][4]) {
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    const int pair = 8 * half + 2 * step;
    a[step][0] = weights.operand(0, pair);
    a[step][1] = weights.operand(1, pair);
    a[step][2] = weights.operand(0, pair + 1);
    a[step][3] = weights.operand(1, pair + 1);
  }
}

/** Starts the products of half a span. */
template <int kBits>
__device__ __forceinline__ void start_products(
    const WideStage<kBits>& stage,
    int half,
    const std::uint32_t (&a)[4][4],
    float (&sums)[64]) {
  begin_products();
#pragma unroll
  for (int digit = 0; digit < kDigits; ++digit) {
    const std::uint64_t b = operand_of(stage.digits[digit][half]);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      multiply_group(sums, a[step], b + 2 * step, digit + step > 0);
    }
  }
  end_products();
}

/** acc += s (sum q x) + b (sum x) of half a span. Returns something of all that
 * it read. */
template <int kBits, bool kIsBf16>
__device__ __forceinline__ std::uint32_t end_half(
    const WideStage<kBits>& stage,
    int half,
    const Weights<kBits, true>& weights,
    const float (&sums)[64],
    float (&acc)[64]) {
  const int lane = threadIdx.x % 32;
  std::uint32_t seen = 0;
  float scale[2];
  float rest[2];
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const uint2 both = weights.params[row];
    const float2 param = param_pair(
        half == 0 ? both.x : both.y,
        kIsBf16 ? Number::BFloat16 : Number::Float16);
    scale[row] = param.x;
    rest[row] = param.y;
  }
#pragma unroll
  for (int j = 0; j < kTokens / 8; ++j) {
    const float2 x = *reinterpret_cast<const float2*>(
        &stage.sums[half][8 * j + lane % 4 * 2]);
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float* to = acc + 4 * j + 2 * row;
      const float* from = sums + 4 * j + 2 * row;
      to[0] = fmaf(rest[row], x.x, fmaf(scale[row], from[0], to[0]));
      to[1] = fmaf(rest[row], x.y, fmaf(scale[row], from[1], to[1]));
    }
    seen ^= __float_as_uint(x.x);
  }
  return seen;
}

/** What a warp's sums come to. */
template <int kSums>
__device__ __forceinline__ void write_outputs(
    const Multiply& args,
    const float (&acc)[kSums]) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const WidePlace place(args);
  const MultiplyPart& part = args.parts[place.part];
  const int first = static_cast<int>(blockIdx.x) * kTokens;
#pragma unroll
  for (int j = 0; j < kTokens / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = first + 8 * j + lane % 4 * 2 + i;
      if (token >= args.rows) {
        continue;
      }
      const float scale = args.scales[token];
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const int output = (place.tile + warp) * kTileRows + row_of(lane, row);
        if (output < part.out) {
          write_result(part, token, output, acc[4 * j + 2 * row + i] * scale);
        }
      }
    }
  }
}

template <int kBits, bool kIsBf16>
__device__ __forceinline__ void multiply_spans(
    const Multiply& args,
    WideMemory<kBits>& memory) {
  using Memory = WideMemory<kBits>;
  const int warp = threadIdx.x / 32;
  const int spans = spans_of(args.in);
  float acc[64] = {};
  float sums[64];
  for (int span = 0; span < spans; ++span) {
    const int at = span % Memory::kStages;
    const auto& stage = memory.stages[at];
    await_barrier(memory.full[at], span / Memory::kStages % 2);
    Weights<kBits, true> weights;
    read_weights(stage, warp, weights);
    std::uint32_t first[4][4];
    operands_of(weights, 0, first);
    start_products(stage, 0, first, sums);
    std::uint32_t second[4][4]; // while the first are under way
    operands_of(weights, 1, second);
    await_products<0>();
    end_half<kBits, kIsBf16>(stage, 0, weights, sums, acc);
    start_products(stage, 1, second, sums);
    await_products<0>();
    const std::uint32_t seen =
        end_half<kBits, kIsBf16>(stage, 1, weights, sums, acc);
    arrive_behind_warp(memory.empty[at], seen);
  }
  write_outputs(args, acc);
}

template <int kBits>
__device__ __forceinline__ void multiply_wide(const Multiply& args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Memory = WideMemory<kBits>;
  static_assert(sizeof(Memory) == wide_bytes(kBits));
  extern __shared__ __align__(1024) unsigned char wide_memory[];
  auto& memory = *reinterpret_cast<Memory*>(wide_memory);
  begin_kernel();
  if (threadIdx.x == 0) {
    make_ring(memory, kWideTiles);
  }
  __syncthreads();
  if (threadIdx.x / 32 == kWideTiles) {
    fill_ring(args, memory);
  } else if (args.parts[0].param_type == Number::BFloat16) {
    multiply_spans<kBits, true>(args, memory);
  } else {
    multiply_spans<kBits, false>(args, memory);
  }
#endif
}

} // namespace

#define OPTIQ_MULTIPLY_WIDE(BITS)                                              \
  extern "C" __global__ void __launch_bounds__(kWideThreads, 1)                \
      multiply_##BITS##bit_exact_wide(const __grid_constant__ Multiply args) { \
    multiply_wide<BITS>(args);                                                 \
  }

OPTIQ_MULTIPLY_WIDE(2)
OPTIQ_MULTIPLY_WIDE(3)
OPTIQ_MULTIPLY_WIDE(4)
OPTIQ_MULTIPLY_WIDE(5)
OPTIQ_MULTIPLY_WIDE(6)
OPTIQ_MULTIPLY_WIDE(8)

} // namespace optiq::kernels::cuda
