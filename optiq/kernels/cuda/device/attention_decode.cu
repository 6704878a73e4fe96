// Attention of few queries to many keys, for heads of 64, 128 and 256 channels
// with keys and values both in bfloat16 or both in codes of one width a side.
//
// A block of threads has up to 8 queries that share a kv head, and a span of
// 512 or 256 tokens (decode_span); a warp one or two pieces of it, 64 or 32
// tokens each, whose bytes are on their way to shared memory: keys from when
// those of the piece before are read, and values (codes), or in a ring of tiles
// (bfloat16). Tokens are rows, queries columns of both products,
//
//   S = K Q^T      O^T = V^T P^T
//
// and a query has two columns, the digits of its numbers: of float16 beside
// codes, brought below 2^15 by a power of two, of bfloat16 beside bfloat16. So
// queries are rounded to 2^-22 or 2^-17 of the largest of them, and so are
// weights. Codes are 1024 more than they are (attention_codes.cuh), which the
// sums begin below zero for; centroids of turbo are float16 (2^-12):
//
//   score = sum over groups: s_k (sum q c) + b_k (sum q)
//   value = sum over tokens: (p s_v) c + p b_v
//
// Weights are exp(s - m) with the largest score m of the piece and those before
// it. Pieces of a warp are added in order, warps are to spans, and spans to
// the result: by whom has no say in the bits.
#include <type_traits>

#include "optiq/kernels/cuda/device/decode_codes.cuh"
#include "optiq/kernels/cuda/device/decode_dense.cuh"

namespace optiq::kernels::cuda {
namespace {

/** Attends to a warp's pieces of a span; queries may still be on their way to
 * the first. */
template <
    class Pieces,
    int kTokens,
    int kPieces,
    int kDim,
    int kTiles,
    int kWarps>
__device__ __forceinline__ void attend_span(
    const Work& work,
    int span,
    char* memory,
    Shared<kDim, kTiles, kWarps>& shared) {
  const auto block_of = [&](const Piece& piece) {
    return piece.is_seen
        ? work.args
              .blocks[work.item.first_block + piece.position / kBlockTokens]
        : 0;
  };
  const Pieces pieces(work, memory);
  Running<kTiles> running;
  Piece piece = work.piece_of<kTokens, kPieces>(span, 0);
  unsigned long long block = block_of(piece);
  pieces.begin(piece, block);
  if (span == work.item.first_span) {
    pieces.await_first();
    __syncthreads(); // queries are there
  }
#pragma unroll 1
  for (int n = 0; n < kPieces; ++n) {
    Piece next = work.piece_of<kTokens, kPieces>(span, n + 1);
    next.is_seen = next.is_seen && n + 1 < kPieces;
    const unsigned long long next_block = block_of(next);
    if (piece.is_seen) {
      pieces.attend(piece, block, next, next_block, shared, running);
      running.has_any = true;
    } else {
      pieces.begin(next, next_block);
    }
    piece = next;
    block = next_block;
  }
  const int lane = threadIdx.x % 32;
  if (lane < 4) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      shared.maxima[threadIdx.x / 32][4 * tile + lane] = running.maxima[tile];
      shared.weights[threadIdx.x / 32][4 * tile + lane] = running.weights[tile];
    }
  }
  __syncthreads();
}

/** What the warps have of a span joined, of a query. */
template <int kDim, int kTiles, int kWarps>
__device__ __forceinline__ Sums<kDim / 32> join_warps(
    const Shared<kDim, kTiles, kWarps>& shared,
    const DecodeMemory& memory,
    const char* warps,
    int query) {
  constexpr int kOwn = kDim / 32;
  const int lane = threadIdx.x % 32;
  Sums<kOwn> all;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    all.maximum = fmaxf(all.maximum, shared.maxima[w][query]);
  }
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const float maximum = shared.maxima[w][query];
    if (maximum == -INFINITY) {
      continue;
    }
    const float factor = __expf(__fsub_rn(maximum, all.maximum));
    const float* values =
        reinterpret_cast<const float*>(warps + w * memory.bytes + memory.sums) +
        query * (kDim + 8) + lane * kOwn;
    all.weight = fmaf(shared.weights[w][query], factor, all.weight);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      all.values[i] = fmaf(values[i], factor, all.values[i]);
    }
  }
  return all;
}

// --- results -----------------------------------------------------------------

/** y = R x of results in shared memory, [queries][kDim], gated. */
template <int kDim, int kTiles>
__device__ __forceinline__ void turn_back(
    const Work& work,
    const float* attended) {
  constexpr int kQueries = 4 * kTiles;
  const Attend& args = work.args;
  for (int channel = threadIdx.x; channel < kDim; channel += blockDim.x) {
    float y[kQueries] = {};
#pragma unroll 16
    for (int j = 0; j < kDim; j += 4) {
      const float4 r = __ldg(
          reinterpret_cast<const float4*>(args.rotation + channel * kDim + j));
#pragma unroll
      for (int query = 0; query < kQueries; ++query) {
        const float4 x =
            *reinterpret_cast<const float4*>(attended + query * kDim + j);
        y[query] = fmaf(
            x.w, r.w, fmaf(x.z, r.z, fmaf(x.y, r.y, fmaf(x.x, r.x, y[query]))));
      }
    }
#pragma unroll
    for (int query = 0; query < kQueries; ++query) {
      if (query < work.item.n_queries) {
        const long long head = work.head_of(query);
        args.y[head * kDim + channel] = gated(args, head, channel, y[query]);
      }
    }
  }
}

/** The results of a tile's queries: rotated back and gated. `attended` is
 * shared memory for them that nobody reads any more. */
template <int kDim, int kTiles, int kWarps, int kPer>
__device__ __forceinline__ void write_results(
    const Work& work,
    const Sums<kDim / 32> (&sums)[kPer],
    float* attended) {
  constexpr int kOwn = kDim / 32;
  const Attend& args = work.args;
  const int lane = threadIdx.x % 32;
  __syncthreads(); // what was in `attended` is read
#pragma unroll
  for (int k = 0; k < kPer; ++k) {
    const int query = threadIdx.x / 32 + kWarps * k;
    if (query >= work.item.n_queries) {
      break;
    }
    float y[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      y[i] = __fdividef(sums[k].values[i], sums[k].weight);
    }
    if (args.rotation != nullptr) {
      write_floats(y, attended + query * kDim + lane * kOwn);
    } else {
      const long long head = work.head_of(query);
      if (args.gate != nullptr) {
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
          y[i] = gated(args, head, lane * kOwn + i, y[i]);
        }
      }
      write_floats(y, args.y + head * kDim + lane * kOwn);
    }
  }
  if (args.rotation != nullptr) {
    __syncthreads();
    turn_back<kDim, kTiles>(work, attended);
  }
}

/** A query's slots. */
template <int kDim>
__device__ __forceinline__ Slots slots_of(const Work& work, int query) {
  const long long first =
      static_cast<long long>(work.head_of(query)) * work.args.slots;
  return {work.args.partials + first * kDim, work.args.sums + first * 2};
}

/** Keeps a span's sums, and has those of its tile joined by the last block of
 * threads that comes. Whether this is it, with all in `sums`. */
template <int kDim, int kWarps, int kPer>
__device__ __forceinline__ bool join_spans(
    const Work& work,
    Sums<kDim / 32> (&sums)[kPer]) {
  const AttendItem& item = work.item;
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int k = 0; k < kPer; ++k) {
    if (warp + kWarps * k < item.n_queries) {
      write_slot(slots_of<kDim>(work, warp + kWarps * k), item.slot, sums[k]);
    }
  }
  const int tile = item.tile * work.args.shape.n_kv_heads + blockIdx.y;
  if (!is_last_of(work.args.arrived + tile, item.n_slots)) {
    return false;
  }
#pragma unroll
  for (int k = 0; k < kPer; ++k) {
    if (warp + kWarps * k < item.n_queries) {
      sums[k] = join_slots<kDim / 32>(
          slots_of<kDim>(work, warp + kWarps * k), item.n_slots);
    }
  }
  return true;
}

template <int kDim, int kTiles, bool kIsDense>
__device__ __forceinline__ void attend(const Attend& args) {
  constexpr int kTokens = decode_tokens(kDim, kIsDense);
  constexpr int kPieces = decode_pieces(kDim, kIsDense);
  constexpr int kWarps = decode_warps(kDim, kIsDense);
  // Queries that a warp joins sums of: warp, warp + kWarps, ...
  constexpr int kPer = 4 * kTiles > kWarps ? 4 * kTiles / kWarps : 1;
  using Own = Sums<kDim / 32>;
  using Pieces = std::conditional_t<
      kIsDense,
      DensePieces<kDim, kTiles, kTokens>,
      CodedPieces<kDim, kTiles, kTokens>>;
  extern __shared__ uint4 dynamic[];
  begin_kernel();
  auto& shared = *reinterpret_cast<Shared<kDim, kTiles, kWarps>*>(dynamic);
  char* warps = reinterpret_cast<char*>(&shared + 1);
  const int warp = threadIdx.x / 32;
  const AttendItem item = args.items[blockIdx.x];
  const Work work{args, item};
  ask_queries(work, shared);
  Own all[kPer];
#pragma unroll 1
  for (int span = item.first_span; span < item.last_span; ++span) {
    const bool is_first = span == item.first_span;
    attend_span<Pieces, kTokens, kPieces>(
        work, span, warps + warp * args.memory.bytes, shared);
#pragma unroll
    for (int k = 0; k < kPer; ++k) {
      const int query = warp + kWarps * k;
      if (query >= shared.kQueries) {
        break;
      }
      const Own one = join_warps(shared, args.memory, warps, query);
      if (is_first) {
        all[k] = one;
      } else {
        all[k].add(one);
      }
    }
    __syncthreads(); // sums are read
  }
  if (item.n_slots > 1 && !join_spans<kDim, kWarps>(work, all)) {
    return;
  }
  write_results<kDim, kTiles, kWarps>(
      work, all, reinterpret_cast<float*>(warps));
}

} // namespace

// Blocks that share a multiprocessor's registers.
#define OPTIQ_DECODE(NAME, DIM, TILES, IS_DENSE, BLOCKS) \
  extern "C" __global__ void __launch_bounds__(          \
      32 * decode_warps(DIM, IS_DENSE), BLOCKS)          \
      attend_decode_##NAME##_##DIM##_##TILES(            \
          const __grid_constant__ Attend args) {         \
    attend<DIM, TILES, IS_DENSE>(args);                  \
  }

OPTIQ_DECODE(codes, 64, 1, false, 4)
OPTIQ_DECODE(codes, 64, 2, false, 3)
OPTIQ_DECODE(codes, 128, 1, false, 4)
OPTIQ_DECODE(codes, 128, 2, false, 3)
OPTIQ_DECODE(codes, 256, 1, false, 2)
OPTIQ_DECODE(codes, 256, 2, false, 1)
OPTIQ_DECODE(dense, 64, 1, true, 3)
OPTIQ_DECODE(dense, 64, 2, true, 2)
OPTIQ_DECODE(dense, 128, 1, true, 2)
OPTIQ_DECODE(dense, 128, 2, true, 2)
OPTIQ_DECODE(dense, 256, 1, true, 2)

} // namespace optiq::kernels::cuda
