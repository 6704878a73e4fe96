// A gated delta net backwards over whole sequences, from states of zeros. With
// D = dL/dS_t, which starts at 0 behind the last token, m = S_(t-1)^T k and e =
// v - g m:
//
//   D += q dy^T                       dq = S_t dy = g S_(t-1) dy + k (d . dy)
//   dd = D^T k                        dk = D d + S_(t-1) dm, dm = -g beta dd
//   dv = beta dd                      dbeta = dd . e
//   dg = <D, S_(t-1)> - beta dd . m   D <- g D + k dm^T
//
// As on the way there a block of threads has 32 columns of S and of D, each of
// its four warps some of the keys' channels, in registers. States are kept
// every kGradientChunk tokens and made again in between.
#include "optiq/kernels/cuda/device/delta_net.cuh"
#include "optiq/kernels/cuda/device/slopes.cuh"
#include "optiq/kernels/cuda/gradient_arguments.h"

namespace optiq::kernels::cuda {
namespace {

constexpr int kThreads = kParts * kStateColumns;
constexpr int kMostEach = 8; // channels of a head in a lane: heads up to 256

/** What the recurrence reads of a chunk, and what it made on the way there. */
template <int kRows>
struct Chunk {
  float q[kGradientChunk][kParts * kRows]; // zero behind the head's channels
  float k[kGradientChunk][kParts * kRows];
  float v[kGradientChunk][kStateColumns];
  float dy[kGradientChunk][kStateColumns];
  float memory[kGradientChunk][kStateColumns]; // m
  float delta[kGradientChunk][kStateColumns]; // d
  float decay[kGradientChunk];
  float beta[kGradientChunk];
};

/** Lane l gets the sum over all lanes of their values[l]: half of the values at
 * every step. */
template <int kStep = 16>
__device__ __forceinline__ float sum_across(float (&values)[32]) {
  const bool is_upper = (threadIdx.x & kStep) != 0;
#pragma unroll
  for (int i = 0; i < kStep; ++i) {
    const float kept = is_upper ? values[i + kStep] : values[i];
    const float sent = is_upper ? values[i] : values[i + kStep];
    values[i] = kept + __shfl_xor_sync(kAllLanes, sent, kStep);
  }
  if constexpr (kStep > 1) {
    return sum_across<kStep / 2>(values);
  } else {
    return values[0];
  }
}

/** A head's strip of one sequence. */
template <int kRows>
class Walk {
 public:
  __device__ __forceinline__ Walk(
      const DeltaGradient& args,
      Chunk<kRows>& chunk,
      float (&sums)[2][kParts][kStateColumns],
      float (&products)[2][kParts])
      : args_(args),
        net_(args.net),
        segment_(args.net.segments[blockIdx.z]),
        chunk_(chunk),
        sums_(sums),
        products_(products),
        head_(blockIdx.y),
        key_head_(head_ / (net_.n_value_heads / net_.n_key_heads)),
        column_(threadIdx.x % kStateColumns),
        part_(threadIdx.x / kStateColumns),
        at_(blockIdx.x * kStateColumns + column_),
        channels_(channels_of(args.net)) {}

  __device__ __forceinline__ void run() {
    const long long strip =
        (static_cast<long long>(blockIdx.z) * net_.n_value_heads + head_) *
            args_.strips +
        blockIdx.x;
    float* kept = args_.kept + strip * args_.chunks * kStateFloats;
    float* states = args_.states + strip * kGradientChunk * kStateFloats;
    const int chunks = (segment_.rows + kGradientChunk - 1) / kGradientChunk;
    for (int c = 0; c < chunks; ++c) {
      store(kept + static_cast<long long>(c) * kStateFloats);
      if (c + 1 < chunks) {
        load_chunk(c * kGradientChunk);
        for (int i = 0; i < kGradientChunk; ++i) {
          step_forward(i);
        }
      }
    }
    for (int c = chunks - 1; c >= 0; --c) {
      const int first = c * kGradientChunk;
      const int count = min(kGradientChunk, segment_.rows - first);
      load(kept + static_cast<long long>(c) * kStateFloats);
      load_chunk(first);
      for (int i = 0; i < count; ++i) {
        store(states + i * kStateFloats);
        step_forward(i);
      }
      for (int i = count - 1; i >= 0; --i) {
        load(states + i * kStateFloats);
        step_back(i, segment_.first_row + first + i);
      }
    }
  }

 private:
  static constexpr int kStateFloats = kParts * kRows * kStateColumns;

  __device__ __forceinline__ void store(float* to) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      to[r * kThreads + threadIdx.x] = state_[r];
    }
  }
  /** What this thread stored. */
  __device__ __forceinline__ void load(const float* from) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      state_[r] = from[r * kThreads + threadIdx.x];
    }
  }

  __device__ __forceinline__ void load_chunk(int first) {
    __syncthreads(); // who still reads the last one
    const int count = min(kGradientChunk, segment_.rows - first);
    const int dim = net_.key_dim;
    for (int i = threadIdx.x; i < count * kParts * kRows; i += kThreads) {
      const int t = i / (kParts * kRows);
      const int channel = i % (kParts * kRows);
      const float* conv = net_.conv +
          static_cast<long long>(segment_.first_row + first + t) * channels_ +
          key_head_ * dim + channel;
      const bool is_there = channel < dim;
      chunk_.q[t][channel] = is_there ? conv[0] : 0.f;
      chunk_.k[t][channel] = is_there ? conv[net_.n_key_heads * dim] : 0.f;
    }
    const bool is_inside = at_ < net_.value_dim;
    for (int t = part_; t < count; t += kParts) {
      const long long row = segment_.first_row + first + t;
      const long long gate = row * net_.n_value_heads + head_;
      chunk_.v[t][column_] = is_inside ? net_.conv[v_at(row)] : 0.f;
      chunk_.dy[t][column_] =
          is_inside ? args_.dy[gate * net_.value_dim + at_] : 0.f;
      if (column_ == 0) {
        chunk_.decay[t] = net_.decay[gate];
        chunk_.beta[t] = net_.beta[gate];
      }
    }
    __syncthreads();
  }

  __device__ __forceinline__ long long v_at(long long row) const {
    return row * channels_ + 2 * net_.n_key_heads * net_.key_dim +
        head_ * net_.value_dim + at_;
  }

  /** The sum over the parts of what each has of this thread's column. */
  __device__ __forceinline__ float sum_of_parts(float mine) {
    turn_ ^= 1;
    sums_[turn_][part_][column_] = mine;
    __syncthreads();
    float sum = 0.f;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      sum += sums_[turn_][p][column_];
    }
    return sum;
  }

  __device__ __forceinline__ void step_forward(int i) {
    const float* k = chunk_.k[i] + part_ * kRows;
    float memory = 0.f;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      memory = fmaf(state_[r], k[r], memory);
    }
    memory = sum_of_parts(memory);
    const float decay = chunk_.decay[i];
    const float delta =
        chunk_.beta[i] * fmaf(-decay, memory, chunk_.v[i][column_]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      state_[r] = fmaf(k[r], delta, decay * state_[r]);
    }
    if (part_ == 0) {
      chunk_.memory[i][column_] = memory;
      chunk_.delta[i][column_] = delta;
    }
  }

  /** `row` is the token's, of the batch. Behind the last step forward every
   * thread met at a barrier but for the last token's m and d: those that read
   * them meet at the one of the first sum here. */
  __device__ __forceinline__ void step_back(int i, long long row) {
    const float* q = chunk_.q[i] + part_ * kRows;
    const float* k = chunk_.k[i] + part_ * kRows;
    const float dy = chunk_.dy[i][column_];
    const float decay = chunk_.decay[i];
    float ddelta = 0.f;
    float product = 0.f;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      dstate_[r] = fmaf(q[r], dy, dstate_[r]);
      ddelta = fmaf(k[r], dstate_[r], ddelta);
      product = fmaf(dstate_[r], state_[r], product);
    }
    product = warp_sum(product);
    if (column_ == 0) {
      products_[turn_ ^ 1][part_] = product;
    }
    ddelta = sum_of_parts(ddelta);
    const float delta = chunk_.delta[i][column_];
    const float memory = chunk_.memory[i][column_];
    const float dv = chunk_.beta[i] * ddelta;
    const float dmemory = -decay * dv;
    write_share(args_.dq, row, [&](int r) {
      return fmaf(decay, state_[r], k[r] * delta) * dy;
    });
    write_share(args_.dk, row, [&](int r) {
      return fmaf(dstate_[r], delta, state_[r] * dmemory);
    });
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      dstate_[r] = fmaf(k[r], dmemory, decay * dstate_[r]);
    }
    if (part_ != 0) {
      return;
    }
    if (at_ < net_.value_dim) {
      args_.dconv[v_at(row)] = dv;
    }
    const float error = fmaf(-decay, memory, chunk_.v[i][column_]);
    const float to_beta = warp_sum(ddelta * error);
    const float to_decay = warp_sum(dv * memory);
    if (column_ == 0) {
      float all = 0.f;
#pragma unroll
      for (int p = 0; p < kParts; ++p) {
        all += products_[turn_][p];
      }
      const long long gate =
          (static_cast<long long>(blockIdx.x) * net_.rows + row) *
              net_.n_value_heads +
          head_;
      args_.dbeta[gate] = to_beta;
      args_.ddecay[gate] = all - to_decay;
    }
  }

  /** This strip's share of dq or dk: sums over its columns, row by row. */
  template <class F>
  __device__ __forceinline__ void
  write_share(float* to, long long row, const F& value) {
    const long long first =
        ((static_cast<long long>(blockIdx.x) * net_.rows + row) *
             net_.n_value_heads +
         head_) *
        net_.key_dim;
#pragma unroll
    for (int batch = 0; batch < kRows; batch += 32) {
      float values[32];
#pragma unroll
      for (int r = 0; r < 32; ++r) {
        values[r] = value(batch + r);
      }
      const float sum = sum_across(values);
      const int channel = part_ * kRows + batch + column_;
      if (channel < net_.key_dim) {
        to[first + channel] = sum;
      }
    }
  }

  const DeltaGradient& args_;
  const DeltaNet& net_;
  StateSegment segment_;
  Chunk<kRows>& chunk_;
  float (&sums_)[2][kParts][kStateColumns];
  float (&products_)[2][kParts];
  int head_;
  int key_head_;
  int column_;
  int part_;
  int at_; // column of the head
  int channels_;
  int turn_ = 0;
  float state_[kRows] = {};
  float dstate_[kRows] = {};
};

/** Grid: strips of columns, value heads, segments. */
template <int kRows>
__device__ __forceinline__ void recur_back(const DeltaGradient& args) {
  __shared__ Chunk<kRows> chunk;
  __shared__ float sums[2][kParts][kStateColumns];
  __shared__ float products[2][kParts];
  begin_kernel();
  Walk<kRows>(args, chunk, sums, products).run();
}

/** What the conv gave before silu. */
__device__ __forceinline__ float
conv_sum(const DeltaNet& net, long long row, int first_row, int channel) {
  const int channels = channels_of(net);
  float sum = 0.f;
  for (int j = 0; j < net.conv_kernel; ++j) {
    const long long from = row - net.conv_kernel + 1 + j;
    if (from >= first_row) {
      sum = fmaf(
          net.conv_weight[channel * net.conv_kernel + j],
          net.qkv[from * channels + channel],
          sum);
    }
  }
  return sum;
}

/** The sum of the shares of strips and of the value heads that read a key head.
 */
__device__ __forceinline__ float sum_of_shares(
    const DeltaGradient& args,
    const float* shares,
    long long row,
    int head,
    int channel) {
  const DeltaNet& net = args.net;
  const int group = net.n_value_heads / net.n_key_heads;
  float sum = 0.f;
  for (int h = head * group; h < (head + 1) * group; ++h) {
    for (int strip = 0; strip < args.strips; ++strip) {
      const long long at =
          (static_cast<long long>(strip) * net.rows + row) * net.n_value_heads +
          h;
      sum += shares[at * net.key_dim + channel];
    }
  }
  return sum;
}

/** Of x / sqrt(sum x^2 + 1e-6) * factor, x being silu of the conv's sums: by a
 * warp, of the head of q or of k that begins at `channel`. */
__device__ __forceinline__ void unit_gradient(
    const DeltaGradient& args,
    const float* shares,
    long long row,
    int first_row,
    int head,
    int channel,
    float factor) {
  const int dim = args.net.key_dim;
  float sums[kMostEach];
  float active[kMostEach];
  float dy[kMostEach];
  float squares = 0.f;
  float along = 0.f;
#pragma unroll
  for (int n = 0; n < kMostEach; ++n) {
    const int i = n * 32 + threadIdx.x;
    const bool is_there = i < dim;
    sums[n] = is_there ? conv_sum(args.net, row, first_row, channel + i) : 0.f;
    active[n] = silu(sums[n]);
    dy[n] = is_there ? sum_of_shares(args, shares, row, head, i) : 0.f;
    squares = fmaf(active[n], active[n], squares);
    along = fmaf(active[n], dy[n], along);
  }
  const float inverse = 1.f / sqrtf(warp_sum(squares) + 1e-6f);
  along = warp_sum(along) * inverse * inverse;
  float* to = args.dconv + row * channels_of(args.net) + channel;
#pragma unroll
  for (int n = 0; n < kMostEach; ++n) {
    const int i = n * 32 + threadIdx.x;
    if (i < dim) {
      to[i] = fmaf(-active[n], along, dy[n]) * (factor * inverse) *
          silu_slope(sums[n]).slope;
    }
  }
}

} // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    delta_recur_gradient_128(const __grid_constant__ DeltaGradient args) {
  recur_back<32>(args);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    delta_recur_gradient_256(const __grid_constant__ DeltaGradient args) {
  recur_back<64>(args);
}

/** Grid: rows, value heads. */
extern "C" __global__ void delta_gate_gradient(
    const __grid_constant__ DeltaGateGradient args) {
  begin_kernel();
  const int dim = args.value_dim;
  const long long at =
      (static_cast<long long>(blockIdx.x) * gridDim.y + blockIdx.y) * dim;
  const float* y = args.y + at;
  float squares = 0.f;
  float along = 0.f;
  for (int i = threadIdx.x; i < dim; i += blockDim.x) {
    squares = fmaf(y[i], y[i], squares);
    const float g = args.dout[at + i] * silu(args.z[at + i]) * args.norm[i];
    along = fmaf(g, y[i], along);
  }
  const auto width = static_cast<float>(dim);
  const float inverse = 1.f / sqrtf(block_sum(squares) / width + args.eps);
  along = block_sum(along) / width * inverse * inverse;
  for (int i = threadIdx.x; i < dim; i += blockDim.x) {
    const float z = args.z[at + i];
    const float out = args.dout[at + i] * args.norm[i];
    args.dz[at + i] = out * y[i] * inverse * silu_slope(z).slope;
    args.dy[at + i] = inverse * fmaf(-y[i], along, out * silu(z));
  }
}

/** From what the recurrence read to the conv's sums, and to b and a. Grid:
 * rows, key heads; a warp each. */
extern "C" __global__ void delta_prepare_gradient(
    const __grid_constant__ DeltaGradient args) {
  begin_kernel();
  const DeltaNet& net = args.net;
  const long long row = blockIdx.x;
  const int head = blockIdx.y;
  const int dim = net.key_dim;
  const int first_row = net.segments[net.row_segments[row]].first_row;
  unit_gradient(
      args,
      args.dq,
      row,
      first_row,
      head,
      head * dim,
      1.f / sqrtf(static_cast<float>(dim)));
  const int keys = net.n_key_heads * dim;
  unit_gradient(args, args.dk, row, first_row, head, keys + head * dim, 1.f);
  const int group = net.n_value_heads / net.n_key_heads;
  const int first = head * group * net.value_dim;
  float* dconv = args.dconv + row * channels_of(net);
  for (int i = threadIdx.x; i < group * net.value_dim; i += 32) {
    const int channel = 2 * keys + first + i;
    dconv[channel] *= silu_slope(conv_sum(net, row, first_row, channel)).slope;
  }
  for (int h = head * group + static_cast<int>(threadIdx.x);
       h < (head + 1) * group;
       h += 32) {
    const long long at = row * net.n_value_heads + h;
    float ddecay = 0.f;
    float dbeta = 0.f;
    for (int strip = 0; strip < args.strips; ++strip) {
      const long long share =
          static_cast<long long>(strip) * net.rows * net.n_value_heads + at;
      ddecay += args.ddecay[share];
      dbeta += args.dbeta[share];
    }
    const float decay = net.decay[at];
    const float beta = net.beta[at];
    args.da[at] = -expf(net.a_log[h]) * decay * ddecay *
        sigmoid(net.a[at] + net.dt_bias[h]);
    args.db[at] = beta * (1.f - beta) * dbeta;
  }
}

/** Tap j read a row for the output conv_kernel - 1 - j behind it. Grid: rows,
 * channels. */
extern "C" __global__ void delta_conv_gradient(
    const __grid_constant__ DeltaGradient args) {
  begin_kernel();
  const DeltaNet& net = args.net;
  const int channels = channels_of(net);
  const int channel = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const long long row = blockIdx.x;
  if (channel >= channels) {
    return;
  }
  const StateSegment segment = net.segments[net.row_segments[row]];
  const long long end = segment.first_row + segment.rows;
  float sum = 0.f;
  for (int j = net.conv_kernel - 1; j >= 0; --j) {
    const long long from = row + net.conv_kernel - 1 - j;
    if (from < end) {
      sum = fmaf(
          net.conv_weight[channel * net.conv_kernel + j],
          args.dconv[from * channels + channel],
          sum);
    }
  }
  args.dqkv[row * channels + channel] = sum;
}

} // namespace optiq::kernels::cuda
