// What adapters add to products: y += scale (x A^T) B, of many updates at once.
// A, B and a norm's gains are on their way while the kernel before ends.
#include "optiq/kernels/cuda/device/common.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr int kThreads = kLowRankThreads;
constexpr int kEach = 8; // columns of a load of numbers of 16 bits
constexpr int kLoads = 2; // of a thread, ahead
constexpr int kRanks = 16; // of a thread, ahead

/** What a thread finds in its columns of a row. */
struct Found {
  float dot = 0.f; // of x, times the norm's gains, and a row of A
  float squares = 0.f; // of x

  __device__ __forceinline__ void add(float x, float gain, float a) {
    dot = fmaf(a, x * gain, dot);
    squares = fmaf(x, x, squares);
  }
};

/** kEach columns of a row of A, and the norm's gains. */
struct Columns {
  uint4 a;
  float4 gains[2];

  __device__ __forceinline__ void
  load(const std::uint16_t* row, const float* of_norm, int i) {
    a = __ldg(reinterpret_cast<const uint4*>(row + i));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      gains[half] = of_norm != nullptr
          ? __ldg(reinterpret_cast<const float4*>(of_norm + i) + half)
          : make_float4(1.f, 1.f, 1.f, 1.f);
    }
  }
  __device__ __forceinline__ void
  add_to(Found& found, const float* x, int i, Number type) const {
    const std::uint32_t pairs[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float4 v = *(reinterpret_cast<const float4*>(x + i) + half);
      const float2 first = param_pair(pairs[2 * half], type);
      const float2 second = param_pair(pairs[2 * half + 1], type);
      found.add(v.x, gains[half].x, first.x);
      found.add(v.y, gains[half].y, first.y);
      found.add(v.z, gains[half].z, second.x);
      found.add(v.w, gains[half].w, second.y);
    }
  }
};

__device__ __forceinline__ Found find_in_halves(
    const LowRank& args,
    const LowRankPart& part,
    int row,
    int rank) {
  constexpr int kStep = kThreads * kEach;
  const auto* a = static_cast<const std::uint16_t*>(part.a) +
      static_cast<long long>(rank) * args.in;
  const int first = static_cast<int>(threadIdx.x) * kEach;
  Columns ahead[kLoads];
#pragma unroll
  for (int k = 0; k < kLoads; ++k) {
    if (first + k * kStep < args.in) {
      ahead[k].load(a, args.gains, first + k * kStep);
    }
  }
  await_previous();
  const float* x = part.x + static_cast<long long>(row) * args.in;
  Found found;
#pragma unroll
  for (int k = 0; k < kLoads; ++k) {
    if (first + k * kStep < args.in) {
      ahead[k].add_to(found, x, first + k * kStep, part.a_type);
    }
  }
#pragma unroll 4
  for (int i = first + kLoads * kStep; i < args.in; i += kStep) {
    Columns columns;
    columns.load(a, args.gains, i);
    columns.add_to(found, x, i, part.a_type);
  }
  return found;
}

__device__ __forceinline__ Found
find_in_any(const LowRank& args, const LowRankPart& part, int row, int rank) {
  await_previous();
  const float* x = part.x + static_cast<long long>(row) * args.in;
  const long long at = static_cast<long long>(rank) * args.in;
  Found found;
  for (int i = threadIdx.x; i < args.in; i += kThreads) {
    found.add(
        x[i],
        args.gains != nullptr ? args.gains[i] : 1.f,
        number_at(part.a, part.a_type, at + i));
  }
  return found;
}

/** Elements of a column of B, of two outputs or of one. */
struct PairOfHalves {
  std::uint32_t bits;

  __device__ __forceinline__ void
  load(const LowRankPart& part, int r, int output) {
    const auto* b = static_cast<const std::uint16_t*>(part.b) +
        static_cast<long long>(r) * part.out + output;
    bits = __ldg(reinterpret_cast<const std::uint32_t*>(b));
  }
  __device__ __forceinline__ float2 values(const LowRankPart& part) const {
    return param_pair(bits, part.b_type);
  }
};
struct AnyPair {
  float2 numbers;

  __device__ __forceinline__ void
  load(const LowRankPart& part, int r, int output) {
    const long long at = static_cast<long long>(r) * part.out + output;
    numbers.x = number_at(part.b, part.b_type, at);
    numbers.y =
        output + 1 < part.out ? number_at(part.b, part.b_type, at + 1) : 0.f;
  }
  __device__ __forceinline__ float2 values(const LowRankPart&) const {
    return numbers;
  }
};

/** Two outputs of a row. */
template <class Pair>
__device__ __forceinline__ void
add_outputs(const LowRankPart& part, int row, int output) {
  Pair ahead[kRanks];
#pragma unroll
  for (int r = 0; r < kRanks; ++r) {
    if (r < part.rank) {
      ahead[r].load(part, r, output);
    }
  }
  await_previous();
  const float* inner = part.inner + static_cast<long long>(row) * part.rank;
  float2 sum = make_float2(0.f, 0.f);
  const auto add = [&](int r, const Pair& pair) {
    const float2 b = pair.values(part);
    sum.x = fmaf(inner[r], b.x, sum.x);
    sum.y = fmaf(inner[r], b.y, sum.y);
  };
#pragma unroll
  for (int r = 0; r < kRanks; ++r) {
    if (r < part.rank) {
      add(r, ahead[r]);
    }
  }
  for (int r = kRanks; r < part.rank; ++r) {
    Pair pair;
    pair.load(part, r, output);
    add(r, pair);
  }
  float* y = part.y + static_cast<long long>(row) * part.out + output;
  y[0] = fmaf(part.scale, sum.x, y[0]);
  if (output + 1 < part.out) {
    y[1] = fmaf(part.scale, sum.y, y[1]);
  }
}

} // namespace

/** Grid: the most rows of an update, the most ranks, updates. */
extern "C" __global__ void __launch_bounds__(kThreads)
    low_rank_inner(const __grid_constant__ LowRank args) {
  allow_next();
  const LowRankPart& part = args.parts[blockIdx.z];
  const int row = blockIdx.x;
  const int rank = blockIdx.y;
  if (row >= part.rows || rank >= part.rank) {
    await_previous();
    return;
  }
  const Found found = part.a_type != Number::Float32 && args.in % kEach == 0
      ? find_in_halves(args, part, row, rank)
      : find_in_any(args, part, row, rank);
  float dot = block_sum(found.dot);
  if (args.gains != nullptr) {
    const float squares = block_sum(found.squares);
    dot *= 1.f / sqrtf(squares / static_cast<float>(args.in) + args.eps);
  }
  if (threadIdx.x == 0) {
    part.inner[static_cast<long long>(row) * part.rank + rank] = dot;
  }
}

/** Grid: pairs of the most outputs, the most rows, updates. */
extern "C" __global__ void __launch_bounds__(kThreads)
    low_rank_add(const __grid_constant__ LowRank args) {
  allow_next();
  const LowRankPart& part = args.parts[blockIdx.z];
  const int output = 2 * static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const int row = blockIdx.y;
  if (row >= part.rows || output >= part.out) {
    await_previous();
  } else if (part.b_type != Number::Float32 && part.out % 2 == 0) {
    add_outputs<PairOfHalves>(part, row, output);
  } else {
    add_outputs<AnyPair>(part, row, output);
  }
}

} // namespace optiq::kernels::cuda
