// Reductions of rows of logits in double precision, a block a row.
#include "optiq/kernels/cuda/device/log_sums.cuh"
#include "optiq/kernels/cuda/logit_arguments.h"

namespace optiq::kernels::cuda {
namespace {

/** A number that is the larger, the larger the value, and of equal ones the
 * lower its index; not 0. */
__device__ __forceinline__ unsigned long long key_of(float value, int index) {
  const std::uint32_t bits = __float_as_uint(value + 0.f); // one zero
  const std::uint32_t ordered = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(ordered) << 32 |
      ~static_cast<std::uint32_t>(index);
}

/** 0 of no key. */
__device__ __forceinline__ int index_of(unsigned long long key) {
  return key == 0 ? 0 : static_cast<int>(~static_cast<std::uint32_t>(key));
}

} // namespace

/** Grid: 1024 quads of words. */
extern "C" __global__ void read_all(const __grid_constant__ ReadAll args) {
  begin_kernel();
  const auto* from = reinterpret_cast<const uint4*>(args.from);
  std::uint32_t seen = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const long long at = blockIdx.x * 1024LL + i * 256 + threadIdx.x;
    if (at < args.quads) {
      const uint4 v = __ldg(from + at);
      seen ^= v.x ^ v.y ^ v.z ^ v.w;
    }
  }
  if (seen == 0x9e3779b9u) { // or the reads would be dropped
    args.result[0] = seen;
  }
}

/** Grid: rows, parts of a row, the last of which has the others' result. */
extern "C" __global__ void argmax(const __grid_constant__ Argmax args) {
  begin_kernel();
  const int row = blockIdx.x;
  const int share = (args.n + static_cast<int>(gridDim.y) - 1) / gridDim.y;
  const int begin = min(args.n, static_cast<int>(blockIdx.y) * share);
  const int n = min(share, args.n - begin);
  const Largest best =
      largest_of(args.x + static_cast<long long>(row) * args.n + begin, n);
  if (threadIdx.x != 0) {
    return;
  }
  if (best.index < n) {
    atomicMax(args.largest + row, key_of(best.value, begin + best.index));
  }
  __threadfence();
  if (atomicAdd(args.arrived + row, 1u) + 1 == gridDim.y) {
    args.indices[row] = index_of(atomicExch(args.largest + row, 0ull));
    args.arrived[row] = 0; // for the next launch
  }
}

extern "C" __global__ void log_sum_exp(const __grid_constant__ Reduce args) {
  begin_kernel();
  const double found = log_sum_exp_of(
      args.x + static_cast<long long>(blockIdx.x) * args.n, args.n);
  if (threadIdx.x == 0) {
    args.wide[blockIdx.x] = found;
  }
}

extern "C" __global__ void pick(const __grid_constant__ Reduce args) {
  begin_kernel();
  const long long row = blockIdx.x;
  if (threadIdx.x == 0) {
    args.values[row] = args.x[row * args.n + args.ids[row]];
  }
}

extern "C" __global__ void kl_divergence(const __grid_constant__ Reduce args) {
  begin_kernel();
  const long long at = static_cast<long long>(blockIdx.x) * args.n;
  const float* x = args.x + at;
  const float* reference = args.reference + at;
  const double reference_lse = log_sum_exp_of(reference, args.n);
  const double shift = reference_lse - log_sum_exp_of(x, args.n);
  double sum = 0;
  for (int i = threadIdx.x; i < args.n; i += blockDim.x) {
    const double r = reference[i];
    const double p = exp(r - reference_lse);
    // What the reference excludes adds nothing, whatever the other says.
    sum += p == 0 ? 0 : p * (r - x[i] - shift);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    args.wide[blockIdx.x] = sum;
  }
}

} // namespace optiq::kernels::cuda
