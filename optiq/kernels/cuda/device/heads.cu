// From projected q, k and v to queries as attention reads them and to K/V in
// the blocks of the cache: norms, RoPE, growth, Turbo's rotation, codes. A
// block of threads has one head of one row.
#include "optiq/kernels/cuda/decode_layout.h"
#include "optiq/kernels/cuda/device/kv_side.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr float kMaxNorm = 65504.f; // the largest finite f16

/** x *= weight / rms, of `n` heads from `from` on, `stride` apart. */
__device__ void norm_head(
    float* x,
    const float* weight,
    int head_dim,
    const float* from,
    int n,
    int stride,
    float eps) {
  float squares = 0.f;
  for (int i = threadIdx.x; i < n * head_dim; i += blockDim.x) {
    const float value =
        from[static_cast<long long>(i / head_dim) * stride + i % head_dim];
    squares = fmaf(value, value, squares);
  }
  const float mean = block_sum(squares) / static_cast<float>(n * head_dim);
  const float factor = 1.f / sqrtf(mean + eps);
  for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
    x[i] = x[i] * factor * weight[i];
  }
  __syncthreads();
}

/** Where the numbers of PlaceHeads are, all of them given by the host. */
struct PlaceNumbers {
  const int* positions;
  const float* frequencies;
  const float* growth;
  const unsigned long long* blocks;
};

__device__ void turn_head(
    float* x,
    int row,
    const PlaceHeads& args,
    const PlaceNumbers& numbers) {
  const auto position = static_cast<float>(numbers.positions[row]);
  const float* frequencies = numbers.frequencies +
      static_cast<long long>(row) * args.frequencies_stride;
  for (int i = threadIdx.x; i < args.half; i += blockDim.x) {
    const int first = args.is_interleaved ? 2 * i : i;
    const int second = args.is_interleaved ? 2 * i + 1 : i + args.half;
    float sine;
    float cosine;
    sincosf(position * frequencies[i], &sine, &cosine);
    const float a = x[first] * args.rope_scale;
    const float b = x[second] * args.rope_scale;
    x[first] = a * cosine - b * sine;
    x[second] = a * sine + b * cosine;
  }
  __syncthreads();
}

/** to = x R. */
__device__ void
rotate(const float* x, const float* rotation, int head_dim, float* to) {
  for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
    float sum = 0.f;
    for (int j = 0; j < head_dim; ++j) {
      sum = fmaf(x[j], rotation[j * head_dim + i], sum);
    }
    to[i] = sum;
  }
  __syncthreads();
}

/** MLX's affine quantizer of a group (cpu/affine_group-inl.h has the formula);
 * a warp has the group. */
__device__ void encode_affine(
    const KvPart& part,
    const float* x,
    int token,
    unsigned char* codes,
    char* side) {
  const int lane = threadIdx.x % 32;
  const auto n = static_cast<float>((1 << part.bits) - 1);
  const int groups = part.padded / part.group;
  for (int g = threadIdx.x / 32; g < groups; g += blockDim.x / 32) {
    const int begin = g * part.group;
    const int end = min(begin + part.group, part.channels);
    float lo = INFINITY;
    float hi = -INFINITY;
    float not_finite = 0.f; // a code cannot say it; the bias does
    for (int i = begin + lane; i < end; i += 32) {
      lo = fminf(lo, x[i]);
      hi = fmaxf(hi, x[i]);
      not_finite = fmaf(x[i], 0.f, not_finite);
    }
    lo = warp_min(lo);
    hi = warp_max(hi);
    not_finite = warp_sum(not_finite);
    const bool is_negative = fabsf(lo) > fabsf(hi);
    float scale = fmaxf((hi - lo) / n, 1e-7f);
    scale = is_negative ? scale : -scale;
    const float edge = is_negative ? lo : hi;
    const float q0 = rintf(edge / scale);
    const float bias = q0 == 0.f ? 0.f : edge;
    scale = q0 == 0.f ? scale : edge / q0;
    for (int i = begin + lane; i < begin + part.group; i += 32) {
      // Behind the last channel its code goes on.
      const float value = x[min(i, part.channels - 1)];
      const float code = rintf((value - bias) / scale);
      codes[i] = static_cast<unsigned char>(fminf(fmaxf(code, 0.f), n));
    }
    if (lane == 0) {
      const int at = token * groups + g;
      reinterpret_cast<__nv_bfloat16*>(side + part.scales_at)[at] =
          __float2bfloat16_rn(scale);
      reinterpret_cast<__nv_bfloat16*>(side + part.biases_at)[at] =
          __float2bfloat16_rn(bias + not_finite);
    }
  }
}

/** The number of edges below x * scale. */
__device__ void encode_turbo(
    const KvPart& part,
    const float* x,
    float scale,
    unsigned char* codes) {
  const int edges = (1 << part.bits) - 1;
  for (int i = threadIdx.x; i < part.padded; i += blockDim.x) {
    const float z = x[min(i, part.channels - 1)] * scale;
    int code = 0;
    for (int e = 0; e < edges; ++e) {
      code += z > part.edges[e];
    }
    codes[i] = static_cast<unsigned char>(code);
  }
}

/** Codes as a stream of bits, lowest first. */
__device__ void pack_stream(
    const KvPart& part,
    const unsigned char* codes,
    std::uint32_t* words) {
  for (int w = threadIdx.x; w < part.words; w += blockDim.x) {
    std::uint32_t word = 0;
    const int last = min((32 * w + 31) / part.bits, part.padded - 1);
    for (int i = 32 * w / part.bits; i <= last; ++i) {
      const int shift = i * part.bits - 32 * w;
      const std::uint32_t code = codes[i];
      word |= shift >= 0 ? code << shift : code >> -shift;
    }
    words[w] = word;
  }
}

/** A vector of head_dim values, in shared memory, into its place of a block. */
__device__ void encode_head(
    const KvSide& side,
    const float* x,
    int token,
    unsigned char* codes,
    char* to) {
  if (side.code == KvCode::Dense) {
    const long long at = static_cast<long long>(token) * side.head_dim;
    for (int i = threadIdx.x; i < side.head_dim; i += blockDim.x) {
      if (side.is_half) {
        reinterpret_cast<__nv_bfloat16*>(to)[at + i] =
            __float2bfloat16_rn(x[i]);
      } else {
        reinterpret_cast<float*>(to)[at + i] = x[i];
      }
    }
    return;
  }
  float unit = 0.f;
  if (side.code == KvCode::Turbo) {
    float squares = 0.f;
    for (int i = threadIdx.x; i < side.head_dim; i += blockDim.x) {
      squares = fmaf(x[i], x[i], squares);
    }
    const float norm = sqrtf(block_sum(squares));
    unit = norm > 0.f ? sqrtf(static_cast<float>(side.head_dim)) / norm : 0.f;
    if (threadIdx.x == 0) {
      const float stored = isfinite(norm) ? fminf(norm, kMaxNorm) : norm;
      reinterpret_cast<__half*>(to)[token] = __float2half_rn(stored);
    }
  }
  for (int p = 0; p < side.n_parts; ++p) {
    const KvPart& part = side.parts[p];
    if (side.code == KvCode::Affine) {
      encode_affine(part, x + part.begin, token, codes, to);
    } else {
      encode_turbo(part, x + part.begin, unit, codes);
    }
    __syncthreads();
    pack_stream(
        part,
        codes,
        reinterpret_cast<std::uint32_t*>(to + part.words_at) +
            static_cast<long long>(token) * part.words);
    __syncthreads();
  }
}

/** A query in shared memory as operands of attention_decode.cu. */
__device__ void place_operands(
    const float* x,
    int head_dim,
    int bits,
    long long head,
    const PlaceHeads& args) {
  const bool is_dense = bits == 16;
  float factor = 1.f;
  if (!is_dense) {
    float largest = 0.f;
    for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
      largest = fmaxf(largest, fabsf(x[i]));
    }
    factor = factor_below_half(block_max(largest));
  }
  auto* to = reinterpret_cast<std::uint16_t*>(args.to_q + head * head_dim);
  for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
    // Codes stand where they stand in their float16.
    const int place = is_dense ? 0 : code_place(bits, i % 4);
    const float value = x[i] * factor *
        __uint_as_float(static_cast<unsigned>(127 - place) << 23);
    const std::uint32_t digits =
        is_dense ? two_digits<true>(value) : two_digits<false>(value);
    std::uint16_t* at =
        to + i / 32 * (2 * kDigitStep) + operand_place(is_dense, 0, i);
    at[0] = static_cast<std::uint16_t>(digits);
    at[kDigitStep] = static_cast<std::uint16_t>(digits >> 16);
  }
  if (threadIdx.x == 0) {
    args.q_factors[head] = inverse_of(factor);
  }
}

/** Grid: rows, then heads of q, of k and of v. Shared: two vectors, codes. */
__device__ __forceinline__ void place_head(
    const PlaceHeads& args,
    const PlaceNumbers& numbers) {
  extern __shared__ float shared[];
  const int head_dim = args.shape.key.head_dim;
  float* x = shared;
  float* rotated = shared + head_dim;
  auto* codes = reinterpret_cast<unsigned char*>(rotated + head_dim);
  const int row = blockIdx.x;
  const int n_kv_heads = args.shape.n_kv_heads;
  const bool is_query = static_cast<int>(blockIdx.y) < args.n_heads;
  const int head =
      is_query ? blockIdx.y : (blockIdx.y - args.n_heads) % n_kv_heads;
  const bool is_key =
      !is_query && static_cast<int>(blockIdx.y) < args.n_heads + n_kv_heads;
  const long long width = static_cast<long long>(n_kv_heads) * head_dim;
  const float* from = is_query
      ? args.q +
          (static_cast<long long>(row) * args.n_heads + head) * args.q_stride
      : (is_key ? args.k : args.v) + row * width + head * head_dim;
  for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
    x[i] = from[i];
  }
  __syncthreads();
  const float* norm = is_query ? args.q_norm
      : is_key                 ? args.k_norm
                               : args.v_norm;
  const bool is_of_rows =
      is_query ? args.q_norm_is_of_rows : is_key && args.k_norm_is_of_rows;
  if (norm != nullptr && is_of_rows) {
    const int n = is_query ? args.n_heads : n_kv_heads;
    const int stride = is_query ? args.q_stride : head_dim;
    const float* first = from - static_cast<long long>(head) * stride;
    norm_head(x, norm + head * head_dim, head_dim, first, n, stride, args.eps);
  } else if (norm != nullptr) {
    norm_head(x, norm, head_dim, from, 1, head_dim, args.eps);
  }
  if (numbers.frequencies != nullptr && (is_query || is_key)) {
    turn_head(x, row, args, numbers);
  }
  if (is_query) {
    const float growth = numbers.growth != nullptr ? numbers.growth[row] : 1.f;
    for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
      x[i] = x[i] * growth * args.scale;
    }
    __syncthreads();
  }
  const KvSide& side = is_query || is_key ? args.shape.key : args.shape.value;
  if (side.rotation != nullptr) {
    rotate(x, side.rotation, head_dim, rotated);
    x = rotated;
  }
  if (is_query) {
    const long long at = static_cast<long long>(row) * args.n_heads + head;
    if (args.operand_bits != 0) {
      place_operands(x, head_dim, args.operand_bits, at, args);
      return;
    }
    float* to = args.to_q + at * head_dim;
    for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
      to[i] = x[i];
    }
    return;
  }
  const int token = numbers.positions[row] % kBlockTokens;
  encode_head(
      side,
      x,
      token,
      codes,
      side_of(args.shape, numbers.blocks[row], head, is_key));
}

/** Places heads with the numbers that came with the launch, and sends them on
 * to where attention reads them. */
template <int kWords>
__device__ __forceinline__ void place_heads(
    const PlaceHeadsSending<kWords>& args) {
  begin_kernel();
  const PlaceHeads& place = args.place;
  const auto here = [&](auto* there) {
    if (args.words == 0 || there == nullptr) {
      return there;
    }
    const auto offset = reinterpret_cast<const char*>(there) -
        reinterpret_cast<const char*>(args.to);
    return reinterpret_cast<decltype(there)>(
        reinterpret_cast<const char*>(args.data) + offset);
  };
  const int block = blockIdx.y * gridDim.x + blockIdx.x;
  for (int i = block * blockDim.x + threadIdx.x; i < args.words;
       i += gridDim.x * gridDim.y * blockDim.x) {
    args.to[i] = args.data[i];
  }
  place_head(
      place,
      {here(place.positions),
       here(place.frequencies),
       here(place.growth),
       here(place.blocks)});
}

} // namespace

#define OPTIQ_PLACE_HEADS(WORDS)                               \
  extern "C" __global__ void place_heads_##WORDS(              \
      const __grid_constant__ PlaceHeadsSending<WORDS> args) { \
    place_heads(args);                                         \
  }

OPTIQ_PLACE_HEADS(1000)
OPTIQ_PLACE_HEADS(7000)

} // namespace optiq::kernels::cuda
