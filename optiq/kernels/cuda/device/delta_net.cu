// Gated delta net (arXiv 2412.06464), per value head, S [Dk][Dv] float32:
//
//   S_t = g_t S_(t-1) + k_t d_t^T,  d_t = beta_t (v_t - g_t S_(t-1)^T k_t)
//   y_t = S_t^T q_t = g_t S_(t-1)^T q_t + d_t (k_t . q_t)
//
// Columns of S are independent: 32 of them go through all rows of a sequence in
// a block of threads, whose four warps share the keys' channels: in registers
// (delta_recur_64, _128, _256), or of other widths in shared memory. Prefill
// and decode are the same arithmetic.
#include "optiq/kernels/cuda/device/delta_net.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr int kThreads = kParts * kStateColumns;

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
  const float dot = normalize_head(q, k, dim, lane);
  if (lane == 0) {
    args.dots[row * args.n_key_heads + head] = dot;
  }
  const int group = args.n_value_heads / args.n_key_heads;
  for (int h = head * group + lane; h < (head + 1) * group; h += 32) {
    const long long at = row * args.n_value_heads + h;
    args.decay[at] = decay_at(args, at, h);
    args.beta[at] = beta_at(args, at);
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

namespace {

/** What a thread needs of a row, on its way while the row before is computed:
 * its share of q and k, the column's v, and the gates. */
template <int kKeyDim>
struct RecurRow {
  static constexpr int kShare = 2 * kKeyDim / kThreads;
  float shares[kShare]; // of q, then k
  float v;
  float decay;
  float beta;
  float dot;

  __device__ __forceinline__ void
  load(const DeltaNet& args, long long row, int head, int column) {
    const int key_head = head / (args.n_value_heads / args.n_key_heads);
    const float* conv = args.conv + row * channels_of(args);
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const int at = threadIdx.x + i * kThreads;
      const int of_key = at < kKeyDim ? key_head : args.n_key_heads + key_head;
      shares[i] = conv[of_key * kKeyDim + at % kKeyDim];
    }
    const long long gate = row * args.n_value_heads + head;
    v = column < args.value_dim
        ? conv[2 * args.n_key_heads * kKeyDim + head * args.value_dim + column]
        : 0.f;
    decay = args.decay[gate];
    beta = args.beta[gate];
    dot = args.dots[row * args.n_key_heads + key_head];
  }
  __device__ __forceinline__ void keep(float (&to)[2 * kKeyDim]) const {
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      to[threadIdx.x + i * kThreads] = shares[i];
    }
  }
};

/** Grid as of delta_recur. */
template <int kKeyDim>
__device__ __forceinline__ void recur_in_registers(const DeltaNet& args) {
  constexpr int kRows = kKeyDim / kParts; // of the state, in a thread
  // A warp may still read the row before, while another writes the next one.
  __shared__ __align__(16) float rows[3][2 * kKeyDim];
  __shared__ float sums[2][2][kParts][kStateColumns];
  begin_kernel();
  const StateSegment segment = args.segments[blockIdx.z];
  const int head = blockIdx.y;
  const int dv = args.value_dim;
  const int column = threadIdx.x % kStateColumns;
  const int part = threadIdx.x / kStateColumns;
  const int at = blockIdx.x * kStateColumns + column;
  const bool is_inside = at < dv;
  float* stored = state_of(segment) +
      static_cast<long long>(head * kKeyDim + part * kRows) * dv + at;
  RecurRow<kKeyDim> next;
  next.load(args, segment.first_row, head, at);
  float state[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    state[i] = is_inside ? stored[static_cast<long long>(i) * dv] : 0.f;
  }
  next.keep(rows[0]);
  __syncthreads();
  int place = 0;
  for (int t = 0; t < segment.rows; ++t) {
    const long long row = segment.first_row + t;
    const RecurRow<kKeyDim> own = next;
    if (t + 1 < segment.rows) {
      next.load(args, row + 1, head, at);
    }
    const float* q = rows[place] + part * kRows;
    const float* k = q + kKeyDim;
    const float2 own_part = products_of_part(state, q, k);
    auto& all = sums[t % 2];
    all[0][part][column] = own_part.x;
    all[1][part][column] = own_part.y;
    place = place == 2 ? 0 : place + 1;
    next.keep(rows[place]);
    __syncthreads();
    const auto [memory, out] = sum_of_parts(all, column);
    const float delta = own.beta * fmaf(-own.decay, memory, own.v);
#pragma unroll
    for (int i = 0; i < kRows; i += 4) {
      float of_k[4];
      read4(k + i, of_k);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        state[i + j] = fmaf(of_k[j], delta, own.decay * state[i + j]);
      }
    }
    if (part == 0 && is_inside) {
      args.y[(row * args.n_value_heads + head) * dv + at] =
          fmaf(own.dot, delta, own.decay * out);
    }
  }
  if (is_inside) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      stored[static_cast<long long>(i) * dv] = state[i];
    }
  }
}

} // namespace

#define OPTIQ_DELTA_RECUR(DIM)                                   \
  extern "C" __global__ void __launch_bounds__(kThreads)         \
      delta_recur_##DIM(const __grid_constant__ DeltaNet args) { \
    recur_in_registers<DIM>(args);                               \
  }

OPTIQ_DELTA_RECUR(64)
OPTIQ_DELTA_RECUR(128)
OPTIQ_DELTA_RECUR(256)

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
