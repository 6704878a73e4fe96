// Row by row: norms and digits before products, embedding, low-rank updates,
// elementwise operations, moves, and products whose weights stay in the file's
// layout.
#include "optiq/kernels/cuda/device/prepare.cuh"

namespace optiq::kernels::cuda {
namespace {

__device__ __forceinline__ long long thread_index() {
  return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
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

template <class Args>
__device__ __forceinline__ int row_to_embed(const Args& args) {
  return args.ids != nullptr ? args.ids[blockIdx.x]
                             : args.first + static_cast<int>(blockIdx.x);
}

constexpr int kPlainRows = 8; // of x, that share a read of W

template <int kWords>
__device__ __forceinline__ void store(const StoreWords<kWords>& args) {
  begin_kernel();
  for (int i = thread_index(); i < args.words; i += gridDim.x * blockDim.x) {
    args.to[i] = args.data[i];
  }
}

} // namespace

#define OPTIQ_STORE_WORDS(WORDS)                        \
  extern "C" __global__ void store_words_##WORDS(       \
      const __grid_constant__ StoreWords<WORDS> args) { \
    store(args);                                        \
  }

OPTIQ_STORE_WORDS(240)
OPTIQ_STORE_WORDS(1000)
OPTIQ_STORE_WORDS(8000)

namespace {

/** How the block's thread makes digits of a row, and what products of it are
 * multiplied by. */
struct RowPlan {
  RowForm form;
  float factor = 1.f;
};

__device__ __forceinline__ RowPlan
plan_row(const float* x, const PrepareRows& args) {
  if (!is_usual(args)) {
    return {form_of(x, args)};
  }
  __shared__ Found found[kPrepareWarps];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  RowBatch batch;
  batch.load_gains(args, 4 * static_cast<int>(threadIdx.x));
  const Found of_lane = find_usual(x, args, batch);
  const Found of_warp{warp_sum(of_lane.squares), warp_largest(of_lane.largest)};
  if (threadIdx.x % 32 == 0) {
    found[warp] = of_warp;
  }
  __syncthreads();
  const float factor = norm_factor(args, found);
  if (args.plain == nullptr && !args.is_tiled) {
    return {{0.f, 1.f, share_scale(args, found, warp % kShares)}, factor};
  }
  float largest = 0.f;
#pragma unroll
  for (const Found& each : found) {
    largest = fmaxf(largest, each.largest);
  }
  return {{0.f, factor, args.n_digits > 0 ? scale_of(largest * factor) : 1.f}};
}

} // namespace

/** Grid: rows, parts of a row, each of which sums up the whole norm. */
extern "C" __global__ void __launch_bounds__(kPrepareThreads)
    prepare_rows(const __grid_constant__ PrepareRows args) {
  begin_kernel();
  const long long row = blockIdx.x;
  const long long rows = gridDim.x;
  const float* x = args.x + row * args.width;
  const RowPlan plan = plan_row(x, args);
  RowDigits to{
      args.digits + row * args.padded,
      rows * args.padded,
      args.sums + row * (args.padded / kChunkColumns)};
  if (args.is_tiled) {
    const long long tile = row / kWideRows;
    const long long tiles = (rows + kWideRows - 1) / kWideRows;
    to.digits = args.digits + tile * kWideRows * args.padded;
    to.stride = tiles * kWideRows * args.padded;
    to.sums = args.sums + tile * kWideRows * (args.padded / kWideColumns);
    to.tile_row = static_cast<int>(row % kWideRows);
  }
  float* plain =
      args.plain != nullptr ? args.plain + row * args.width : nullptr;
  // Parts of few rows are a span for each warp, so that none is left over.
  const int first = (blockIdx.y * kPrepareThreads + threadIdx.x) * 4;
  const int end = gridDim.y == 1
      ? args.padded
      : min(args.padded, static_cast<int>(blockIdx.y + 1) * RowBatch::kStep);
  write_row(args, x, plan.form, first, end, plain, to);
  if (blockIdx.y != 0 || threadIdx.x % 32 != 0 || args.n_digits == 0) {
    return;
  }
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const float scale = inverse_scale(plan.form.scale);
  if (!args.is_tiled && warp < kShares) {
    args.row_scales[row].shares[warp] = scale;
  }
  if (warp == 0) {
    if (args.is_tiled) {
      args.scales[row] = scale;
    } else {
      args.row_scales[row].factor = plan.factor;
    }
  }
}

extern "C" __global__ void pack_codes(const __grid_constant__ PackCodes args) {
  begin_kernel();
  const long long at = thread_index();
  if (at < args.words) {
    args.codes[at] = packed_word(
        args.rows, args.row_words, args.out, args.in, args.bits, at);
  }
}

extern "C" __global__ void pack_params(
    const __grid_constant__ PackParams args) {
  begin_kernel();
  const long long at = thread_index();
  const int each = span_params(args.group_shift);
  const int chunk = chunk_of_param(static_cast<int>(at % each));
  const long long tile_row = at / each;
  const auto span = static_cast<int>(tile_row / kTileRows % args.spans);
  const int group = (4 * span + chunk) >> args.group_shift;
  const long long row =
      tile_row / kTileRows / args.spans * kTileRows + tile_row % kTileRows;
  const long long from = row * args.groups + group;
  const bool is_inside =
      at < args.words && row < args.out && group < args.groups;
  const std::uint32_t both = is_inside
      ? args.scales[from] | static_cast<std::uint32_t>(args.biases[from]) << 16
      : 0u;
  if (at < args.words) {
    args.params[at] = both;
  }
  const float2 param = param_pair(both, args.type);
  const auto last = static_cast<float>((1 << args.bits) - 1);
  const float bound =
      fmaxf(fabsf(param.y), fabsf(fmaf(last, param.x, param.y)));
  const unsigned largest = __reduce_max_sync(kAllLanes, __float_as_uint(bound));
  if (threadIdx.x % 32 == 0) {
    atomicMax(args.largest, largest); // floats above 0 are in their bits' order
  }
}

extern "C" __global__ void find_largest(
    const __grid_constant__ FindLargest args) {
  begin_kernel();
  constexpr std::uint32_t kMagnitude = 0x7fff;
  std::uint32_t largest = 0; // halves above 0 are in their bits' order
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = thread_index(); i < args.count; i += step) {
    const std::uint32_t both = args.pairs[i];
    largest = max(largest, max(both & kMagnitude, both >> 16 & kMagnitude));
  }
  largest = __reduce_max_sync(kAllLanes, largest);
  if (threadIdx.x % 32 == 0) {
    atomicMax(args.largest, __float_as_uint(param_pair(largest, args.type).x));
  }
}

extern "C" __global__ void scale_halves(
    const __grid_constant__ ScaleHalves args) {
  begin_kernel();
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = thread_index(); i < args.count; i += step) {
    const float2 both = param_pair(args.pairs[i], args.type);
    args.pairs[i] = half_pair(both.x * args.factor, both.y * args.factor);
  }
}

extern "C" __global__ void embed_packed(
    const __grid_constant__ EmbedPacked args) {
  begin_kernel();
  const int row = row_to_embed(args);
  const int spans = spans_of(args.in);
  const int shift = shift_of_group(args.group);
  float* y = args.y + static_cast<long long>(blockIdx.x) * args.in;
  for (int i = threadIdx.x; i < args.in; i += blockDim.x) {
    const std::int64_t before = params_before(
        row / kTileRows, i / kSpanColumns, spans, row % kTileRows, shift);
    const int chunk = i % kSpanColumns / kChunkColumns;
    const float2 param = param_pair(
        args.params[before + param_of_chunk(chunk, shift)], args.param_type);
    const auto code =
        static_cast<float>(code_at(args.codes, spans, args.bits, row, i));
    y[i] = fmaf(param.x, code, param.y) * args.scale;
  }
}

extern "C" __global__ void embed_plain(
    const __grid_constant__ EmbedPlain args) {
  begin_kernel();
  const int row = row_to_embed(args);
  float* y = args.y + static_cast<long long>(blockIdx.x) * args.weight.in;
  for (int i = threadIdx.x; i < args.weight.in; i += blockDim.x) {
    y[i] = weight_at(args.weight, row, i) * args.scale;
  }
}

/** A warp has one output of kPlainRows rows. */
extern "C" __global__ void multiply_plain(
    const __grid_constant__ MultiplyPlain args) {
  begin_kernel();
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

extern "C" __global__ void apply(const __grid_constant__ Apply args) {
  begin_kernel();
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
    case Elementwise::GeluTanh:
      args.y[i] = gelu_tanh(a) * args.b[i];
      break;
    case Elementwise::Softcap:
      args.y[i] = args.factor * tanhf(a / args.factor);
      break;
  }
}

/** Grid: rows, columns. */
extern "C" __global__ void gather(const __grid_constant__ Gather args) {
  begin_kernel();
  const long long row = blockIdx.x;
  const int column = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  if (column < args.width) {
    const long long from = args.rows != nullptr ? args.rows[row] : row;
    args.y[row * args.width + column] =
        args.x[from * args.stride + args.begin + column];
  }
}

} // namespace optiq::kernels::cuda
