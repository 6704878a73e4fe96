// Gated delta net (arXiv 2412.06464), per value head, S [Dk][Dv] float32:
//
//   S_t = g_t S_(t-1) + k_t d_t^T,  d_t = beta_t (v_t - g_t S_(t-1)^T k_t)
//   y_t = S_t^T q_t = g_t S_(t-1)^T q_t + d_t (k_t . q_t)
//
// Columns of S are independent: 32 of them go through all rows of a sequence in
// the shared memory of a block of threads. Prefill and decode are the same
// arithmetic.
#include "optiq/kernels/cuda/device/common.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kParts = kThreads / kStateColumns; // of the keys' channels

__device__ __forceinline__ int channels_of(const DeltaNet& args) {
  return 2 * args.n_key_heads * args.key_dim +
      args.n_value_heads * args.value_dim;
}

__device__ __forceinline__ float* state_of(const StateSegment& segment) {
  return reinterpret_cast<float*>(segment.block);
}

/** [conv_kernel - 1][channels], the oldest row first. */
__device__ __forceinline__ float* conv_state_of(
    const StateSegment& segment,
    const DeltaNet& args) {
  return state_of(segment) +
      static_cast<long long>(args.n_value_heads) * args.key_dim *
      args.value_dim;
}

/** Row `row` of a segment, those before it from its state. */
__device__ __forceinline__ float input_at(
    const DeltaNet& args,
    const StateSegment& segment,
    int row,
    int channel) {
  const int channels = channels_of(args);
  return row < 0
      ? conv_state_of(segment, args)
            [static_cast<long long>(row + args.conv_kernel - 1) * channels +
             channel]
      : args.qkv
            [static_cast<long long>(segment.first_row + row) * channels +
             channel];
}

/** log(1 + exp(x)) without overflow. */
__device__ __forceinline__ float softplus(float x) {
  return fmaxf(x, 0.f) + log1pf(expf(-fabsf(x)));
}

} // namespace

/** Grid: channels, rows. */
extern "C" __global__ void delta_conv(const __grid_constant__ DeltaNet args) {
  begin_kernel();
  const int channel = blockIdx.x * blockDim.x + threadIdx.x;
  const int channels = channels_of(args);
  if (channel >= channels) {
    return;
  }
  const int row = blockIdx.y;
  const StateSegment segment = args.segments[args.row_segments[row]];
  const int at = row - segment.first_row;
  float sum = 0.f;
  for (int j = 0; j < args.conv_kernel; ++j) {
    sum = fmaf(
        args.conv_weight[channel * args.conv_kernel + j],
        input_at(args, segment, at - args.conv_kernel + 1 + j, channel),
        sum);
  }
  args.conv[static_cast<long long>(row) * channels + channel] = silu(sum);
}

/** The last rows become the conv state. Grid: channels, segments. */
extern "C" __global__ void delta_keep_rows(
    const __grid_constant__ DeltaNet args) {
  begin_kernel();
  const int channel = blockIdx.x * blockDim.x + threadIdx.x;
  const int channels = channels_of(args);
  const StateSegment segment = args.segments[blockIdx.y];
  if (channel >= channels || segment.rows == 0) {
    return;
  }
  // Oldest first: no row is read after it was written.
  for (int j = 0; j < args.conv_kernel - 1; ++j) {
    const float kept = input_at(
        args, segment, segment.rows - args.conv_kernel + 1 + j, channel);
    conv_state_of(
        segment, args)[static_cast<long long>(j) * channels + channel] = kept;
  }
}

/** q / |q| Dk^-1/2, k / |k|, k . q and the gates. Grid: rows, key heads; a warp
 * each. */
extern "C" __global__ void delta_prepare(
    const __grid_constant__ DeltaNet args) {
  begin_kernel();
  const long long row = blockIdx.x;
  const int head = blockIdx.y;
  const int dim = args.key_dim;
  float* q = args.conv + row * channels_of(args) + head * dim;
  float* k = q + args.n_key_heads * dim;
  const int lane = threadIdx.x;
  float q_squares = 0.f;
  float k_squares = 0.f;
  for (int i = lane; i < dim; i += 32) {
    q_squares = fmaf(q[i], q[i], q_squares);
    k_squares = fmaf(k[i], k[i], k_squares);
  }
  const float q_factor =
      1.f / sqrtf(static_cast<float>(dim)) / sqrtf(warp_sum(q_squares) + 1e-6f);
  const float k_factor = 1.f / sqrtf(warp_sum(k_squares) + 1e-6f);
  float dot = 0.f;
  for (int i = lane; i < dim; i += 32) {
    q[i] *= q_factor;
    k[i] *= k_factor;
    dot = fmaf(q[i], k[i], dot);
  }
  dot = warp_sum(dot);
  if (lane == 0) {
    args.dots[row * args.n_key_heads + head] = dot;
  }
  const int group = args.n_value_heads / args.n_key_heads;
  for (int h = head * group + lane; h < (head + 1) * group; h += 32) {
    const long long at = row * args.n_value_heads + h;
    const float step = softplus(args.a[at] + args.dt_bias[h]);
    args.decay[at] = expf(-expf(args.a_log[h]) * step);
    args.beta[at] = 1.f / (1.f + expf(-args.b[at]));
  }
}

/** Grid: strips of columns, value heads, segments. Shared: the state's strip,
 * q, k and what the parts have of two sums. */
extern "C" __global__ void __launch_bounds__(kThreads)
    delta_recur(const __grid_constant__ DeltaNet args) {
  begin_kernel();
  extern __shared__ float shared[];
  const StateSegment segment = args.segments[blockIdx.z];
  const int head = blockIdx.y;
  const int dk = args.key_dim;
  const int dv = args.value_dim;
  const int column = threadIdx.x % kStateColumns;
  const int part = threadIdx.x / kStateColumns;
  const int at = blockIdx.x * kStateColumns + column;
  const bool is_inside = at < dv;
  float* state = shared; // [Dk][32]
  float* q = state + dk * kStateColumns;
  float* k = q + dk;
  float* sums = k + dk; // [2][kParts][32]
  const int key_head = head / (args.n_value_heads / args.n_key_heads);
  const int channels = channels_of(args);
  const int begin = dk * part / kParts;
  const int end = dk * (part + 1) / kParts;
  float* stored =
      state_of(segment) + static_cast<long long>(head) * dk * dv + at;
  for (int i = begin; i < end; ++i) {
    state[i * kStateColumns + column] =
        is_inside ? stored[static_cast<long long>(i) * dv] : 0.f;
  }
  for (int t = 0; t < segment.rows; ++t) {
    const long long row = segment.first_row + t;
    const float* conv = args.conv + row * channels;
    for (int i = threadIdx.x; i < dk; i += kThreads) {
      q[i] = conv[key_head * dk + i];
      k[i] = conv[(args.n_key_heads + key_head) * dk + i];
    }
    __syncthreads();
    float memory = 0.f;
    float out = 0.f;
    for (int i = begin; i < end; ++i) {
      const float s = state[i * kStateColumns + column];
      memory = fmaf(s, k[i], memory);
      out = fmaf(s, q[i], out);
    }
    sums[part * kStateColumns + column] = memory;
    sums[(kParts + part) * kStateColumns + column] = out;
    __syncthreads();
    memory = 0.f;
    out = 0.f;
    for (int p = 0; p < kParts; ++p) {
      memory += sums[p * kStateColumns + column];
      out += sums[(kParts + p) * kStateColumns + column];
    }
    const long long gate = row * args.n_value_heads + head;
    const float decay = args.decay[gate];
    const float v =
        is_inside ? conv[2 * args.n_key_heads * dk + head * dv + at] : 0.f;
    const float delta = args.beta[gate] * fmaf(-decay, memory, v);
    for (int i = begin; i < end; ++i) {
      float& s = state[i * kStateColumns + column];
      s = fmaf(k[i], delta, decay * s);
    }
    if (part == 0 && is_inside) {
      args.y[gate * dv + at] = fmaf(
          args.dots[row * args.n_key_heads + key_head], delta, decay * out);
    }
    __syncthreads(); // q, k and sums are read
  }
  if (is_inside) {
    for (int i = begin; i < end; ++i) {
      stored[static_cast<long long>(i) * dv] =
          state[i * kStateColumns + column];
    }
  }
}

/** y = y / rms(y) * norm * silu(z). Grid: rows, value heads. */
extern "C" __global__ void delta_gate(const __grid_constant__ DeltaNet args) {
  begin_kernel();
  const long long at =
      (static_cast<long long>(blockIdx.x) * args.n_value_heads + blockIdx.y) *
      args.value_dim;
  float* y = args.y + at;
  float squares = 0.f;
  for (int i = threadIdx.x; i < args.value_dim; i += blockDim.x) {
    squares = fmaf(y[i], y[i], squares);
  }
  const float factor = 1.f /
      sqrtf(block_sum(squares) / static_cast<float>(args.value_dim) +
            args.norm_eps);
  for (int i = threadIdx.x; i < args.value_dim; i += blockDim.x) {
    y[i] = y[i] * factor * args.norm[i] * silu(args.z[at + i]);
  }
}

} // namespace optiq::kernels::cuda
