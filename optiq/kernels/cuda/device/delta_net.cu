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

/** Grid: channels, kConvRows rows. */
extern "C" __global__ void delta_conv(const __grid_constant__ DeltaNet args) {
  begin_kernel();
  const int channel = blockIdx.x * blockDim.x + threadIdx.x;
  const int channels = channels_of(args);
  if (channel >= channels) {
    return;
  }
#pragma unroll
  for (int i = 0; i < kConvRows; ++i) {
    const int row = static_cast<int>(blockIdx.y) * kConvRows + i;
    if (row >= args.rows) {
      return;
    }
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

// Rows that are on their way while one is computed: memory answers later than a
// row takes.
constexpr int kRowsAhead = 4;
// Of a thread, so that what it reads of q and k serves both: these are 16
// apart.
constexpr int kColumns = 2;
constexpr int kPairs = kStateColumns / kColumns;

/** A row in shared memory. */
template <int kKeyDim>
struct SharedRow {
  static constexpr int kGates = 3;
  float q[kKeyDim];
  float k[kKeyDim];
  float gates[4]; // decay, beta, k . q
};

/** Where what a thread brings of row 0 lies: places are found once, since they
 * take divisions. */
template <int kKeyDim>
struct RecurSource {
  static constexpr int kShare = 2 * kKeyDim / kThreads;
  const float* shares[kShare]; // of q, then k
  const float* v;
  const float* gate; // of the first threads
  int channels; // from row to row
  int gates; // the same
  bool is_inside[kColumns]; // whether there is such a column

  __device__ __forceinline__
  RecurSource(const DeltaNet& args, int head, int column)
      : v(args.conv + 2 * args.n_key_heads * kKeyDim + head * args.value_dim +
          column),
        channels(channels_of(args)) {
    const int key_head = head / (args.n_value_heads / args.n_key_heads);
    const bool is_dot = threadIdx.x == 2;
    gate = is_dot ? args.dots + key_head
                  : (threadIdx.x == 0 ? args.decay : args.beta) + head;
    gates = is_dot ? args.n_key_heads : args.n_value_heads;
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const int at = threadIdx.x + i * kThreads;
      const int of_key = at < kKeyDim ? key_head : args.n_key_heads + key_head;
      shares[i] = args.conv + of_key * kKeyDim + at % kKeyDim;
    }
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      is_inside[j] = column + j * kPairs < args.value_dim;
    }
  }
};

/** What a thread brings of a row: its share of q and k, its columns' v, and the
 * first ones a gate. */
template <int kKeyDim>
struct RecurRow {
  static constexpr int kShare = RecurSource<kKeyDim>::kShare;
  float shares[kShare];
  float v[kColumns];
  float gate;

  __device__ __forceinline__ void load(
      const RecurSource<kKeyDim>& from,
      int row) {
    const std::int64_t at = static_cast<std::int64_t>(row) * from.channels;
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      shares[i] = from.shares[i][at];
    }
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      v[j] = from.is_inside[j] ? from.v[at + j * kPairs] : 0.f;
    }
    gate = from.gate[static_cast<std::int64_t>(row) * from.gates];
  }
  __device__ __forceinline__ void keep(SharedRow<kKeyDim>& to) const {
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      to.q[threadIdx.x + i * kThreads] = shares[i]; // k is behind q
    }
    if (threadIdx.x < SharedRow<kKeyDim>::kGates) {
      to.gates[threadIdx.x] = gate;
    }
  }
};

/** What channels of the keys have of k . S and q . S. */
struct StateSums {
  float memory[kColumns] = {};
  float out[kColumns] = {};
};

/** kRows channels of the keys of a thread's columns of the state. */
template <int kRows>
struct ColumnPart {
  float state[kColumns][kRows];
  float of_k[kRows]; // of the row in hand

  __device__ __forceinline__ void
  load(const float* stored, int stride, const bool (&is_inside)[kColumns]) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        state[j][i] = is_inside[j]
            ? stored[static_cast<long long>(i) * stride + j * kPairs]
            : 0.f;
      }
    }
  }
  __device__ __forceinline__ void
  store(float* stored, int stride, const bool (&is_inside)[kColumns]) const {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        if (is_inside[j]) {
          stored[static_cast<long long>(i) * stride + j * kPairs] = state[j][i];
        }
      }
    }
  }
  /** Of a warp's channels, of which its halves have half each. */
  __device__ __forceinline__ StateSums
  products(const float* q, const float* k) {
    StateSums sums;
#pragma unroll
    for (int i = 0; i < kRows; i += 4) {
      float of_q[4];
      read4(q + i, of_q);
      read4(k + i, reinterpret_cast<float(&)[4]>(of_k[i]));
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
          sums.memory[j] = fmaf(state[j][i + n], of_k[i + n], sums.memory[j]);
          sums.out[j] = fmaf(state[j][i + n], of_q[n], sums.out[j]);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      sums.memory[j] += __shfl_xor_sync(kAllLanes, sums.memory[j], kPairs);
      sums.out[j] += __shfl_xor_sync(kAllLanes, sums.out[j], kPairs);
    }
    return sums;
  }
  /** decay S + k delta. */
  __device__ __forceinline__ void move_on(
      const float (&delta)[kColumns],
      float decay) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        state[j][i] = fmaf(of_k[i], delta[j], decay * state[j][i]);
      }
    }
  }
};

/** What a thread has: a warp has a part of the keys' channels, half of its
 * lanes half of these. */
template <int kRows>
struct RecurPlace {
  int part = static_cast<int>(threadIdx.x) / 32;
  int half = static_cast<int>(threadIdx.x) / kPairs % 2;
  int channel = (2 * part + half) * kRows; // the first of the keys'
  int column = static_cast<int>(threadIdx.x) % kPairs; // of the block's
  int at = static_cast<int>(blockIdx.x) * kStateColumns + column; // the head's

  __device__ __forceinline__ bool writes_results() const {
    return part == 0 && half == 0;
  }
};

/** What the parts have of k . S and q . S. */
struct PartSums {
  float4 of_parts[2][kStateColumns];

  /** Of a warp's part its halves write one sum each. */
  template <class Place>
  __device__ __forceinline__ void write(
      const Place& of,
      const StateSums& sums) {
    static_assert(kParts == 4);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      float4& of_column = of_parts[of.half][of.column + j * kPairs];
      reinterpret_cast<float*>(&of_column)[of.part] =
          of.half == 0 ? sums.memory[j] : sums.out[j];
    }
  }
  __device__ __forceinline__ float memory(int column) const {
    return sum(of_parts[0][column]);
  }
  __device__ __forceinline__ float out(int column) const {
    return sum(of_parts[1][column]);
  }
  /** As sum_of_parts. */
  static __device__ __forceinline__ float sum(const float4& v) {
    return 0.f + v.x + v.y + v.z + v.w;
  }
};

/** Grid as of delta_recur. */
template <int kKeyDim>
__device__ __forceinline__ void recur_in_registers(const DeltaNet& args) {
  constexpr int kRows = kKeyDim / kParts / 2; // of the state, in a thread
  // A warp may still read the row before, while another writes the next one.
  __shared__ __align__(16) SharedRow<kKeyDim> rows[3];
  __shared__ PartSums sums[2];
  begin_kernel();
  const StateSegment segment = args.segments[blockIdx.z];
  const int head = blockIdx.y;
  const int dv = args.value_dim;
  const RecurPlace<kRows> mine;
  const RecurSource<kKeyDim> source(args, head, mine.at);
  float* stored = state_of(segment) +
      static_cast<std::int64_t>(head * kKeyDim + mine.channel) * dv + mine.at;
  const std::int64_t y_stride = args.n_value_heads * dv;
  float* y = args.y + segment.first_row * y_stride + head * dv + mine.at;
  const auto row_at = [&](int t) { // or the last one
    return segment.first_row + min(t, segment.rows - 1);
  };
  RecurRow<kKeyDim> ahead[kRowsAhead];
#pragma unroll
  for (int i = 0; i < kRowsAhead; ++i) {
    ahead[i].load(source, row_at(i));
  }
  ColumnPart<kRows> state;
  state.load(stored, dv, source.is_inside);
  ahead[0].keep(rows[0]);
  __syncthreads();
  int place = 0;
  const auto pass_row = [&](int t, RecurRow<kKeyDim>& brought, auto& next) {
    const SharedRow<kKeyDim>& row = rows[place];
    const auto [decay, beta, dot, unused] =
        *reinterpret_cast<const float4*>(row.gates);
    PartSums& all = sums[t % 2];
    all.write(mine, state.products(row.q + mine.channel, row.k + mine.channel));
    place = place == 2 ? 0 : place + 1;
    next.keep(rows[place]);
    __syncthreads();
    float delta[kColumns];
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const int column = mine.column + j * kPairs;
      delta[j] = beta * fmaf(-decay, all.memory(column), brought.v[j]);
      if (mine.writes_results() && source.is_inside[j]) {
        y[t * y_stride + j * kPairs] =
            fmaf(dot, delta[j], decay * all.out(column));
      }
    }
    state.move_on(delta, decay);
    // Last, so that no copy of what was there waits for memory.
    brought.load(source, row_at(t + kRowsAhead));
  };
  for (int first = 0; first < segment.rows; first += kRowsAhead) {
#pragma unroll
    for (int i = 0; i < kRowsAhead; ++i) {
      if (first + i < segment.rows) {
        pass_row(first + i, ahead[i], ahead[(i + 1) % kRowsAhead]);
      }
    }
  }
  state.store(stored, dv, source.is_inside);
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
