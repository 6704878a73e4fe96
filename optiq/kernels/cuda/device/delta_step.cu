// One row of each sequence through a gated delta net, in one launch: a block of
// threads has a value head, its convolutions, its state and its gate. The same
// arithmetic as delta_net.cu has, in the same order, so that rows have the same
// bits. Heads have kDim channels of keys and of values.
#include "optiq/kernels/cuda/device/delta_net.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr int kGateThreads = 64; // which add up squares in delta_gate

template <int kDim>
struct StepMemory {
  float x[3][kDim]; // q, k and v behind the convolution
  float sums[2][kParts][kDim];
  float y[kDim];
  float gate_sums[kGateThreads / 32];
  float dot;
  float decay;
  float beta;
  bool is_last; // of the blocks that read the rows of q and k
};

/** The channel of a thread: of q, then k, then v. */
template <int kDim>
__device__ __forceinline__ int channel_of(const DeltaNet& args, int head) {
  const int what = threadIdx.x / kDim;
  const int key_head = head / (args.n_value_heads / args.n_key_heads);
  return static_cast<int>(threadIdx.x) % kDim +
      (what == 2 ? 2 * args.n_key_heads * kDim + head * kDim
                 : (what * args.n_key_heads + key_head) * kDim);
}

/** delta_conv. */
__device__ __forceinline__ float
convolved(const DeltaNet& args, const StateSegment& segment, int channel) {
  float sum = 0.f;
  for (int j = 0; j < args.conv_kernel; ++j) {
    sum = fmaf(
        args.conv_weight[channel * args.conv_kernel + j],
        input_at(args, segment, j - args.conv_kernel + 1, channel),
        sum);
  }
  return silu(sum);
}

/** delta_keep_rows. */
__device__ __forceinline__ void
keep_row(const DeltaNet& args, const StateSegment& segment, int channel) {
  float* kept = conv_state_of(segment, args) + channel;
  const int channels = channels_of(args);
  for (int j = 0; j < args.conv_kernel - 1; ++j) {
    kept[static_cast<long long>(j) * channels] =
        input_at(args, segment, j - args.conv_kernel + 2, channel);
  }
}

/** Whether this block is the last of those that share a key head to have read
 * its rows. By one thread. */
__device__ __forceinline__ bool is_last_of_key_head(
    const DeltaStep& all,
    int head) {
  const DeltaNet& args = all.net;
  const int group = args.n_value_heads / args.n_key_heads;
  if (group == 1) {
    return true;
  }
  unsigned* arrived =
      all.arrived + blockIdx.y * args.n_key_heads + head / group;
  if (atomicAdd(arrived, 1u) + 1 != group) {
    return false;
  }
  *arrived = 0; // for the next launch
  return true;
}

/** delta_prepare of the head: by a warp. */
template <int kDim>
__device__ __forceinline__ void prepare_step(
    const DeltaNet& args,
    long long gate,
    int head,
    StepMemory<kDim>& memory) {
  const int lane = threadIdx.x % 32;
  const float dot = normalize_head(memory.x[0], memory.x[1], kDim, lane);
  if (lane == 0) {
    const float decay = decay_at(args, gate, head);
    memory.dot = dot;
    memory.decay = decay;
    memory.beta = beta_at(args, gate);
  }
}

/** delta_recur: a column of the state and a quarter of the keys' channels. */
template <int kDim>
__device__ __forceinline__ void
recur(float* stored, float (&state)[kDim / kParts], StepMemory<kDim>& memory) {
  constexpr int kRows = kDim / kParts;
  const int column = threadIdx.x % kDim;
  const int part = threadIdx.x / kDim;
  const float* k = memory.x[1] + part * kRows;
  const float2 own = products_of_part(state, memory.x[0] + part * kRows, k);
  memory.sums[0][part][column] = own.x;
  memory.sums[1][part][column] = own.y;
  __syncthreads();
  const auto [sum, out] = sum_of_parts(memory.sums, column);
  const float decay = memory.decay;
  const float delta = memory.beta * fmaf(-decay, sum, memory.x[2][column]);
#pragma unroll
  for (int i = 0; i < kRows; i += 4) {
    float of_k[4];
    read4(k + i, of_k);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      stored[static_cast<long long>(i + j) * kDim] =
          fmaf(of_k[j], delta, decay * state[i + j]);
    }
  }
  if (part == 0) {
    memory.y[column] = fmaf(memory.dot, delta, decay * out);
  }
  __syncthreads();
}

/** delta_gate. */
template <int kDim>
__device__ __forceinline__ void
gate_step(const DeltaNet& args, long long at, StepMemory<kDim>& memory) {
  if (threadIdx.x < kGateThreads) {
    float squares = 0.f;
    for (int i = threadIdx.x; i < kDim; i += kGateThreads) {
      squares = fmaf(memory.y[i], memory.y[i], squares);
    }
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0) {
      memory.gate_sums[threadIdx.x / 32] = squares;
    }
  }
  __syncthreads();
  if (threadIdx.x < kDim) {
    float squares = 0.f;
    for (const float sum : memory.gate_sums) {
      squares += sum;
    }
    const float factor =
        1.f / sqrtf(squares / static_cast<float>(kDim) + args.norm_eps);
    const int i = threadIdx.x;
    args.y[at + i] = memory.y[i] * factor * args.norm[i] * silu(args.z[at + i]);
  }
}

/** Grid: value heads, segments. */
template <int kDim>
__device__ __forceinline__ void delta_step(const DeltaStep& all) {
  constexpr int kRows = kDim / kParts;
  __shared__ __align__(16) StepMemory<kDim> memory;
  begin_kernel();
  const DeltaNet& args = all.net;
  const StateSegment segment = all.segments[blockIdx.y];
  const int head = blockIdx.x;
  const int column = threadIdx.x % kDim;
  const int part = threadIdx.x / kDim;
  float* stored = state_of(segment) +
      (static_cast<long long>(head) * kDim + part * kRows) * kDim + column;
  float state[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    state[i] = stored[static_cast<long long>(i) * kDim];
  }
  if (part < 3) {
    memory.x[part][column] =
        convolved(args, segment, channel_of<kDim>(args, head));
  }
  __syncthreads();
  const long long gate =
      static_cast<long long>(segment.first_row) * args.n_value_heads + head;
  if (threadIdx.x < 32) {
    prepare_step(args, gate, head, memory);
  } else if (threadIdx.x == kParts * kDim - 1) {
    memory.is_last = is_last_of_key_head(all, head);
  }
  __syncthreads();
  recur(stored, state, memory);
  gate_step(args, gate * kDim, memory);
  // Rows of v are this block's alone.
  if (part == 2 || (part < 2 && memory.is_last)) {
    keep_row(args, segment, channel_of<kDim>(args, head));
  }
}

} // namespace

#define OPTIQ_DELTA_STEP(DIM)                                    \
  extern "C" __global__ void __launch_bounds__(kParts* DIM, 1)   \
      delta_step_##DIM(const __grid_constant__ DeltaStep args) { \
    delta_step<DIM>(args);                                       \
  }

OPTIQ_DELTA_STEP(64)
OPTIQ_DELTA_STEP(128)

} // namespace optiq::kernels::cuda
