// Row by row: norms and digits before products, embedding, low-rank updates,
// elementwise operations, moves, and products whose weights stay in the file's
// layout.
#include "optiq/kernels/cuda/device/common.cuh"
#include "optiq/kernels/cuda/packed_layout.h"

namespace optiq::kernels::cuda {
namespace {

__device__ __forceinline__ long long thread_index() {
  return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

/** What a norm does to a row: y = (x - mean) * factor, then gain and bias. */
struct RowNorm {
  float mean;
  float factor;
};

__device__ __forceinline__ RowNorm
norm_of(const float* x, const PrepareRows& args) {
  const auto width = static_cast<float>(args.width);
  float mean = 0.f;
  if (args.is_layer_norm) {
    float sum = 0.f;
#pragma unroll 8
    for (int i = threadIdx.x; i < args.width; i += blockDim.x) {
      sum += x[i];
    }
    mean = block_sum(sum) / width;
  }
  float squares = 0.f;
#pragma unroll 8
  for (int i = threadIdx.x; i < args.width; i += blockDim.x) {
    const float centered = x[i] - mean;
    squares = fmaf(centered, centered, squares);
  }
  return {mean, 1.f / sqrtf(block_sum(squares) / width + args.eps)};
}

__device__ __forceinline__ unsigned short bf16_of(float x) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

/** Element of a matrix in the file's layout. */
__device__ __forceinline__ float
weight_at(const PlainMatrix& w, int row, int column) {
  if (w.bits == 0) {
    return number_at(
        w.weight, w.type, static_cast<long long>(row) * w.in + column);
  }
  const long long row_words = static_cast<long long>(w.in) * w.bits / 32;
  const auto* codes = static_cast<const std::uint32_t*>(w.weight);
  const auto code =
      static_cast<float>(stream_code(codes + row * row_words, column, w.bits));
  const long long group =
      static_cast<long long>(row) * (w.in / w.group) + column / w.group;
  return fmaf(
      number_at(w.scales, w.type, group),
      code,
      number_at(w.biases, w.type, group));
}

constexpr int kPlainRows = 8; // of x, that share a read of W

} // namespace

/** Grid: rows, parts of a row, each of which sums up the whole norm. */
extern "C" __global__ void prepare_rows(
    const __grid_constant__ PrepareRows args) {
  const long long row = blockIdx.x;
  const long long rows = gridDim.x;
  const float* x = args.x + row * args.width;
  const RowNorm norm =
      args.weight != nullptr ? norm_of(x, args) : RowNorm{0.f, 1.f};
  const int lane = threadIdx.x % 32;
  const int chunks = args.padded / kChunkColumns;
  const int warps = blockDim.x / 32;
  for (int chunk = blockIdx.y * warps + threadIdx.x / 32; chunk < chunks;
       chunk += gridDim.y * warps) {
    const int i = chunk * kChunkColumns + lane;
    float y = 0.f;
    if (i < args.width) {
      y = x[i];
      if (args.weight != nullptr) {
        y = (y - norm.mean) * norm.factor * args.weight[i];
        y += args.bias != nullptr ? args.bias[i] : 0.f;
      }
      if (args.plain != nullptr) {
        args.plain[row * args.width + i] = y;
      }
    }
    if (args.n_digits == 0) {
      continue;
    }
    float sum = 0.f;
    for (int digit = 0; digit < args.n_digits; ++digit) {
      const unsigned short bits = bf16_of(y - sum);
      args.digits[(digit * rows + row) * args.padded + i] = bits;
      sum += bf16_bits(bits);
    }
    sum = warp_sum(sum);
    if (lane == 0) {
      args.sums[row * chunks + chunk] = sum;
    }
  }
}

extern "C" __global__ void pack_codes(const __grid_constant__ PackCodes args) {
  const long long at = thread_index();
  if (at < args.words) {
    args.codes[at] = packed_word(
        args.rows, args.row_words, args.out, args.in, args.bits, at);
  }
}

extern "C" __global__ void pack_params(
    const __grid_constant__ PackParams args) {
  const long long at = thread_index();
  if (at >= args.words) {
    return;
  }
  const auto group = static_cast<int>(at / kTileRows % args.padded_groups);
  const long long row =
      at / kTileRows / args.padded_groups * kTileRows + at % kTileRows;
  const bool is_inside = row < args.out && group < args.groups;
  const long long from = row * args.groups + group;
  args.params[at] = is_inside
      ? args.scales[from] | static_cast<std::uint32_t>(args.biases[from]) << 16
      : 0u;
}

extern "C" __global__ void embed_packed(
    const __grid_constant__ EmbedPacked args) {
  const int row = args.ids[blockIdx.x];
  const int spans = spans_of(args.in);
  const int groups = spans * kSpanColumns / args.group;
  const std::uint32_t* params = args.params +
      static_cast<long long>(row / kTileRows) * groups * kTileRows +
      row % kTileRows;
  float* y = args.y + static_cast<long long>(blockIdx.x) * args.in;
  for (int i = threadIdx.x; i < args.in; i += blockDim.x) {
    const float2 param =
        param_pair(params[i / args.group * kTileRows], args.param_type);
    const auto code =
        static_cast<float>(code_at(args.codes, spans, args.bits, row, i));
    y[i] = fmaf(param.x, code, param.y) * args.scale;
  }
}

extern "C" __global__ void embed_plain(
    const __grid_constant__ EmbedPlain args) {
  const int row = args.ids[blockIdx.x];
  float* y = args.y + static_cast<long long>(blockIdx.x) * args.weight.in;
  for (int i = threadIdx.x; i < args.weight.in; i += blockDim.x) {
    y[i] = weight_at(args.weight, row, i) * args.scale;
  }
}

/** A warp has one output of kPlainRows rows. */
extern "C" __global__ void multiply_plain(
    const __grid_constant__ MultiplyPlain args) {
  const int output = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const int first = blockIdx.y * kPlainRows;
  const int in = args.weight.in;
  if (output >= args.weight.out) {
    return;
  }
  float sums[kPlainRows] = {};
  for (int i = threadIdx.x % 32; i < in; i += 32) {
    const float w = weight_at(args.weight, output, i);
#pragma unroll
    for (int r = 0; r < kPlainRows; ++r) {
      if (first + r < args.rows) {
        sums[r] = fmaf(
            w, args.x[static_cast<long long>(first + r) * in + i], sums[r]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kPlainRows; ++r) {
    float y = warp_sum(sums[r]);
    if (first + r >= args.rows || threadIdx.x % 32 != 0) {
      continue;
    }
    const long long at =
        static_cast<long long>(first + r) * args.weight.out + output;
    y += args.bias != nullptr ? args.bias[output] : 0.f;
    args.y[at] = args.residual != nullptr ? args.residual[at] + y : y;
  }
}

/** Grid: rows of the update, ranks. */
extern "C" __global__ void low_rank_inner(
    const __grid_constant__ LowRankInner args) {
  const long long row = blockIdx.x;
  const long long rank = blockIdx.y;
  float sum = 0.f;
  for (int i = threadIdx.x; i < args.in; i += blockDim.x) {
    sum = fmaf(
        number_at(args.a, args.type, rank * args.in + i),
        args.x[row * args.in + i],
        sum);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    args.inner[row * gridDim.y + rank] = sum;
  }
}

/** Grid: outputs, rows. */
extern "C" __global__ void low_rank_add(
    const __grid_constant__ LowRankAdd args) {
  const long long output = thread_index();
  const long long row = blockIdx.y;
  if (output >= args.out) {
    return;
  }
  float sum = 0.f;
  for (int r = 0; r < args.rank; ++r) {
    sum = fmaf(
        args.inner[row * args.rank + r],
        number_at(
            args.b, args.type, static_cast<long long>(r) * args.out + output),
        sum);
  }
  float& y = args.y[row * args.out + output];
  y = fmaf(args.scale, sum, y);
}

extern "C" __global__ void apply(const __grid_constant__ Apply args) {
  const long long i = thread_index();
  if (i >= args.n) {
    return;
  }
  const float a = args.a[i];
  switch (args.what) {
    case Elementwise::Add:
      args.y[i] = a + args.b[i];
      break;
    case Elementwise::Scale:
      args.y[i] = a * args.factor;
      break;
    case Elementwise::Silu:
      args.y[i] = silu(a) * args.b[i];
      break;
    case Elementwise::GeluTanh: {
      const float u = 0.7978845608028654f * fmaf(0.044715f * a * a, a, a);
      args.y[i] = 0.5f * a * (1.f + tanhf(u)) * args.b[i];
      break;
    }
    case Elementwise::Softcap:
      args.y[i] = args.factor * tanhf(a / args.factor);
      break;
  }
}

/** Grid: columns, rows. */
extern "C" __global__ void gather(const __grid_constant__ Gather args) {
  const long long column = thread_index();
  const long long row = blockIdx.y;
  if (column < args.width) {
    const long long from = args.rows != nullptr ? args.rows[row] : row;
    args.y[row * args.width + column] =
        args.x[from * args.stride + args.begin + column];
  }
}

} // namespace optiq::kernels::cuda
