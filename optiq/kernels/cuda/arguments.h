#pragma once

#include <cstddef>
#include <cstdint>

/** What kernels are given, one struct each: shared by host and card, so that
 * neither can misread the other. Pointers are the card's. T = rows. */
namespace optiq::kernels::cuda {

/** How numbers lie in memory. */
enum class Number : int { Float32, BFloat16, Float16 };

// --- products ----------------------------------------------------------------

/** Spans of columns are shared out to so many warps in turn, in products of up
 * to 64 rows. */
inline constexpr int kShares = 8;

/** What the sums of a row's shares are multiplied by, and then all of it. */
struct alignas(16) RowScales {
  float shares[kShares];
  float factor;
};

/** Rows as products take them: after an optional norm, as sums of digits,
 * padded with zeros to whole spans of columns. A digit is a float16, of rows
 * times a power of two that brings them below 2^15; two hold a float32 but for
 * its last bit. Each share of a row has its own power of two, and what an RMS
 * norm divides by is left to the product, so that a warp can make digits of its
 * columns before it knows the others. In wide_layout.h a row has one power of
 * two, and is normed. */
struct PrepareRows {
  const float* x; // [T, width]
  const float* weight; // [width] of a norm; null without one
  const float* bias; // [width] of a LayerNorm, or null
  float eps;
  int is_layer_norm;
  int width;
  int padded;
  float* plain; // [T, width], or null: not wanted
  int n_digits; // 0: none wanted
  std::uint16_t* digits; // [n_digits, T, padded]
  float* sums; // [T, padded / 32] of the digits
  RowScales* row_scales; // [T] what sums of digits are to be multiplied by
  int is_tiled; // digits and sums as wide_layout.h has them
  float* scales; // tiled: [T] instead of row_scales
};

/** Threads of its blocks. */
inline constexpr int kPrepareThreads = 512;

/** A matrix [out, in] of a launch, packed or dense float16, and what comes of
 * it: y = x W^T unit + bias + residual. */
struct MultiplyPart {
  const std::uint32_t* weight; // codes, or f16 [out, in]
  const std::uint32_t* params; // (scale, bias) pairs
  Number param_type; // bf16 or f16
  float factor; // of packed weights in float16 (matrix.h)
  float unit; // of dense ones
  int group_shift; // 32 columns << shift are a group
  int out;
  int first_block; // of the launch's, as many tiles each as its kernel takes
  const float* bias; // [out] or null
  const float* residual; // [T, out] or null
  float* y; // [T, out]
};

inline constexpr int kMostParts = 4;

/** Bytes of a span of a tile in shared memory: codes and params, or dense. */
constexpr std::size_t stage_bytes(int bits, int group_shift) {
  const int params = bits == 16 ? 0 : group_shift == 0 ? 256 : 128;
  return std::size_t{256} * bits + params;
}
/** Cards whose blocks of threads have 227 KB of shared memory; others have 99
 * or more. */
constexpr bool has_large_shared(int major) {
  return major == 9 || major == 10;
}
/** Threads that multiply in a block of the kernels for up to 16 rows. */
inline constexpr int kFewThreads = 512;
/** Whether products of a single row have their weights from the bulk engine. */
constexpr bool copies_in_bulk(int bits, int major) {
  return major >= 9 && bits != 16;
}
/** Threads of a block for a single row: a warp more asks the bulk engine, and
 * one writes results. */
constexpr int own_threads(int bits, int major) {
  return kFewThreads + (copies_in_bulk(bits, major) ? 32 : 0) + 32;
}
/** Spans that a warp of the kernels for up to `rows` rows, 8 or 16, has in
 * shared memory: one in hand, and on their way what hides the latency of
 * memory. Sixteen rows are to fit beside them. */
constexpr int few_stages(int bits, int rows, bool has_large) {
  if (!has_large) {
    return bits == 2 ? 6 : bits <= 3 ? 5 : bits == 4 ? 4 : bits == 5 ? 3 : 2;
  }
  if (rows > 8 && bits <= 4) {
    return bits == 4 ? 3 : 4;
  }
  return bits == 2 ? 9
      : bits == 3  ? 7
      : bits == 4  ? 5
      : bits <= 6  ? 4
      : bits == 8  ? 3
                   : 2;
}
/** Shared memory of the fast kernels for up to 64 rows (product_batch.cu), with
 * two or four tiles of outputs and 16 or 32 rows in a task: stages of each
 * of eight warps, as many as there is room for. */
constexpr int batch_stage_bytes(int bits, int tiles, int rows) {
  return rows * (2 * 128 + 16) + tiles * (256 * bits + 128);
}
constexpr int batch_stages(int bits, int tiles, int rows) {
  constexpr int kRoom = 224 << 10;
  const int fit = kRoom / (8 * batch_stage_bytes(bits, tiles, rows));
  return fit < 4 ? fit : 4;
}
constexpr int batch_most_tiles(int bits) {
  return bits == 4 || bits == 5 ? 4 : 2;
}
constexpr std::size_t batch_bytes(int bits, int tiles, int rows) {
  return std::size_t{8} * batch_stages(bits, tiles, rows) *
      batch_stage_bytes(bits, tiles, rows);
}
/** Shared memory of the exact kernel for many rows. */
inline constexpr int kWideStages = 2;
constexpr std::size_t wide_bytes(int bits) {
  constexpr std::size_t kDigitBytes = sizeof(std::uint16_t) * 2 * 128 * 128;
  constexpr std::size_t kParamAndSumBytes = 2048;
  const std::size_t stage = kDigitBytes +
      static_cast<std::size_t>(8 * 256 * bits) + kParamAndSumBytes;
  constexpr std::size_t kBarriers = 1024;
  return kWideStages * stage + kBarriers;
}
/** Others have tasks of 64 `width` outputs, two or four; two warp groups
 * multiply and one copies. */
inline constexpr unsigned kWideTaskThreads = 384;
constexpr std::size_t wide_fast_stage_bytes(int bits, int width) {
  constexpr std::size_t kDigitBytes = sizeof(std::uint16_t) * 128 * 128;
  const std::size_t tiles = std::size_t{4} * width;
  const std::size_t bytes = kDigitBytes + tiles * (256 * bits + 128);
  return (bytes + 1023) / 1024 * 1024;
}
constexpr int wide_fast_stages(int bits, int width) {
  constexpr std::size_t kRoom = std::size_t{224} << 10;
  return static_cast<int>(kRoom / wide_fast_stage_bytes(bits, width));
}
constexpr std::size_t wide_fast_bytes(int bits, int width) {
  constexpr std::size_t kBarriers = 1024;
  return wide_fast_stages(bits, width) * wide_fast_stage_bytes(bits, width) +
      kBarriers;
}
/** Of dense weights there are rows alone, in halves of spans. */
constexpr std::size_t wide_dense_stage_bytes(bool is_exact) {
  return sizeof(std::uint16_t) * (is_exact ? 2 : 1) * 128 * 64;
}
constexpr int wide_dense_stages(bool is_exact) {
  return is_exact ? 6 : 8;
}
constexpr std::size_t wide_dense_bytes(bool is_exact) {
  constexpr std::size_t kBarriers = 1024;
  return wide_dense_stages(is_exact) * wide_dense_stage_bytes(is_exact) +
      kBarriers;
}
/** Between rows in shared memory, of digits and of sums: other banks. */
inline constexpr int kFewPadding = 32;
inline constexpr int kFewSumsPadding = 4;

enum class Elementwise : int { Add, Scale, Silu, GeluTanh, Softcap };

/** Products of the same rows with matrices of one width. */
struct Multiply {
  MultiplyPart parts[kMostParts];
  int n_parts;
  int n_blocks; // of all parts; of few rows tasks of blocks
  int n_tiles; // few rows: of a task
  int is_gated; // y of the second part is activation(first) * second
  Elementwise activation;
  const std::uint16_t* digits; // [n, T, padded]
  const float* sums; // [T, padded / 32]
  const RowScales* row_scales; // [T]
  const float* scales; // [T] of rows in wide_layout.h
  int rows; // T
  int in;
  int shares_rows; // few rows: whether they fit into shared memory
  PrepareRows own; // of a single row, which every block prepares for itself
};

/** A matrix in the file's layout: dense, or MLX's affine triple. */
struct PlainMatrix {
  const void* weight; // [out, in], or u32 codes [out, in * bits / 32]
  const void* scales; // [out, in / group]; null when dense
  const void* biases;
  Number type; // of a dense weight, or of scales and biases
  int bits; // 0 when dense
  int group;
  int out;
  int in;
};

/** The same product in float32, for matrices in the file's layout. */
struct MultiplyPlain {
  PlainMatrix weight;
  const float* x; // [T, in]
  int rows;
  const float* bias; // [out] or null
  const float* residual; // [T, out] or null
  float* y; // [T, out]
};

/** The largest magnitude of halves of either kind. */
struct FindLargest {
  const std::uint32_t* pairs;
  long long count; // of pairs
  Number type;
  unsigned* largest; // zero before: its bits as a float
};

/** Halves of either kind times a power of two in float16, in their place. */
struct ScaleHalves {
  std::uint32_t* pairs;
  long long count; // of pairs
  Number type;
  float factor;
};

/** MLX's affine triple into the layout of packed_layout.h. */
struct PackCodes {
  const std::uint32_t* rows; // [out, row_words]
  int row_words;
  int out;
  int in;
  int bits;
  std::uint32_t* codes;
  long long words; // of codes
};
struct PackParams {
  const std::uint16_t* scales; // [out, groups], halves of either kind
  const std::uint16_t* biases;
  int out;
  int groups;
  int spans; // of 128 columns
  int group_shift; // 32 columns << shift are a group
  Number type;
  int bits;
  std::uint32_t* params;
  long long words; // of params
  unsigned* largest; // zero before: bits of the largest |weight|'s bound
};

/** Rows `ids` of a matrix, or those from `first` on, times scale. */
struct EmbedPacked {
  const int* ids; // or null
  int first;
  const std::uint32_t* codes;
  const std::uint32_t* params;
  Number param_type;
  int bits;
  int group;
  int in;
  float scale;
  float* y; // [ids, in]
};
struct EmbedPlain {
  const int* ids; // or null
  int first;
  PlainMatrix weight;
  float scale;
  float* y; // [ids, in]
};

/** inner = x A^T of the rows of a low-rank update, then y += scale inner B. */
struct LowRankPart {
  const float* x; // [rows, in]
  const void* a; // [rank, in]
  const void* b; // [rank, out]
  float* inner; // [rows, rank]
  float* y; // [rows, out]
  Number a_type;
  Number b_type;
  int rows;
  int rank;
  int out;
  float scale;
};
/** Those of a launch, which reads A and B ahead of what is before it. */
inline constexpr int kMostLowRankParts = 32;
inline constexpr unsigned kLowRankThreads = 256;
struct LowRank {
  LowRankPart parts[kMostLowRankParts];
  int in;
  const float* gains; // [in] of an RMS norm of x, or null
  float eps;
};

// --- elementwise -------------------------------------------------------------

/** y = a + b, a factor, activation(a) b, or factor tanh(a / factor). */
struct Apply {
  Elementwise what;
  const float* a;
  const float* b;
  float factor;
  float* y;
  long long n;
};

/** y[i] = x[rows[i]] from a column on. */
struct Gather {
  const float* x;
  const int* rows; // null: row i
  long long stride; // of x
  int begin;
  int width;
  float* y; // [n, width]
};

// --- attention ---------------------------------------------------------------

enum class KvCode : int { Dense, Affine, Turbo };

/** Channels of one width of a packed side. Offsets are bytes from the side's
 * begin. */
struct KvPart {
  int begin;
  int channels;
  int padded;
  int bits;
  int group;
  int groups; // of a token: padded / group
  int words; // u32 a token
  int words_at; // [64 tokens][words]
  int scales_at; // affine: bf16 [64][padded / group]
  int biases_at;
  float centroids[32]; // turbo
  float edges[31];
  /** Centroids of up to 4 bits in float16, of 4 bits the upper half: their low
   * bytes, then their high ones. */
  std::uint32_t half_bytes[4];
};

/** Keys or values of one kv head in one block of 64 tokens. */
struct KvSide {
  KvCode code;
  int is_half; // dense: bfloat16, else float32
  int head_dim;
  int n_parts;
  int bytes;
  KvPart parts[2];
  const float* rotation; // [head_dim][head_dim] of a turbo side: x R
};

struct KvShape {
  KvSide key;
  KvSide value;
  int n_kv_heads;
};

/** Norms, RoPE and rotation of every head; keys and values into their blocks.
 */
struct PlaceHeads {
  KvShape shape;
  const float* q; // [T, n_heads * q_stride]
  const float* k; // [T, n_kv_heads * head_dim]
  const float* v;
  const float* q_norm; // [head_dim] of every head, [heads * head_dim] of rows
  const float* k_norm; // with norms of rows, or null
  const float* v_norm;
  int q_norm_is_of_rows;
  int k_norm_is_of_rows;
  float eps;
  int n_heads;
  int q_stride; // from head to head: head_dim, twice with a gate
  int appends; // whether k and v have rows
  const int* positions; // [T]
  const float* frequencies; // [rotary_dim / 2], or [T, ...]; null: no RoPE
  int half; // rotary_dim / 2
  int frequencies_stride; // 0: of all rows
  int is_interleaved;
  float rope_scale;
  const float* growth; // [T] factors of queries, or null
  float scale; // of queries
  const unsigned long long* blocks; // [T]: the block of each row's token
  float* to_q; // [T, n_heads, head_dim]
  /** Instead of floats operands (decode_layout.h), as many bytes: 0 none, 16 of
   * bfloat16, else of float16 beside codes of so many bits. */
  int operand_bits;
  float* q_factors; // [T, n_heads]: what operands are to be multiplied by
};

/** The same with the numbers that it and attention read, as words on their way
 * to `to`: pointers into what lies there are read from `data`. */
template <int kWords>
struct PlaceHeadsSending {
  PlaceHeads place;
  std::uint32_t* to;
  int words; // 0: they are there
  alignas(16) std::uint32_t data[kWords];
};

inline constexpr int kFewPlaceWords = 1000;
inline constexpr int kManyPlaceWords = 7000;

/** Queries of one segment that share keys: `n_queries` at most kTileQueries,
 * numbered row * group + head within the kv head. */
struct AttendItem {
  int first_row; // of the segment in the batch
  int start; // position of that row
  int first_block; // of the segment in `blocks`
  int first_query;
  int n_queries;
  int first_span;
  int last_span;
  int slot; // where its partial goes
  int n_slots; // of its tile: partials that make a result
  int tile; // with other items the same, whose last makes it
};

inline constexpr int kTileQueries = 16;
inline constexpr int kFewQueries = 4;
inline constexpr int kSpanTokens = 256;
inline constexpr int kChunkTokens = 32;
inline constexpr int kMaxHeadDim = 512;
inline constexpr int kMaxKvGroups = 8; // of a head (attention_tiles.cu)

/** What attention_tiles.cu takes of shared memory for heads of `dim` channels,
 * of which keys and values together have `groups`. */
constexpr int attend_tiles_bytes(int dim, int groups) {
  constexpr int kWarps = 8;
  const int queries = 3 * 2 * kTileQueries * (dim + 32);
  const int weights = 3 * 2 * kTileQueries * (kSpanTokens + 32);
  const int sums = 4 * kTileQueries * (kMaxKvGroups + 2 * kWarps);
  const int pointers = 2 * 8 * kSpanTokens / 64;
  return queries + weights + sums + pointers + groups * kSpanTokens * 8;
}

/** Between tokens of `bytes` each in shared memory (attention_decode.cu): an
 * odd number of 16 bytes where it can be. Others lie well as they are. */
constexpr int row_pitch(int bytes) {
  return bytes % 32 == 0 ? bytes + 16 : bytes;
}
/** Bytes of a token's scales and biases, or of its norm. */
constexpr int param_bytes(const KvSide& side) {
  return side.code == KvCode::Turbo ? 2 : 4 * side.parts[0].groups;
}
/** Shared memory of a packed side's tokens. */
constexpr int decode_side_bytes(const KvSide& side, int tokens) {
  return tokens * (row_pitch(4 * side.parts[0].words) + param_bytes(side));
}
/** How heads of `dim` channels are attended to: tokens that a warp has at once,
 * the piece; pieces that it has of a span; warps of a block of threads. Of
 * dense tokens that many tiles of 16 are on a warp's way. */
constexpr int decode_tokens(int dim, bool is_dense) {
  return is_dense || dim <= 128 ? 64 : 32;
}
constexpr int decode_pieces(int dim, bool is_dense) {
  return is_dense || dim <= 128 ? 2 : 1;
}
constexpr int decode_warps(int dim, bool is_dense) {
  return is_dense || dim <= 128 ? 4 : 8;
}
constexpr int decode_span(int dim, bool is_dense) {
  return decode_pieces(dim, is_dense) * decode_warps(dim, is_dense) *
      decode_tokens(dim, is_dense);
}
constexpr int decode_stages(int dim) {
  return dim > 128 ? 2 : 4;
}
/** The most queries of a block, as far as there are registers for sums. */
constexpr int decode_queries(int dim, bool is_dense) {
  return is_dense && dim > 128 ? 4 : 8;
}
/** Where a warp's shared memory has what, and how much of it there is. */
struct DecodeMemory {
  int values; // behind keys, of codes
  int sums; // of values, of every query
  int bytes;
};
constexpr DecodeMemory decode_memory(const KvShape& shape, int tiles) {
  const int dim = shape.key.head_dim;
  const int sums = 4 * 4 * tiles * (dim + 8);
  if (shape.key.code == KvCode::Dense) {
    const int ring = decode_stages(dim) * 16 * row_pitch(2 * dim);
    return {0, ring, ring + sums};
  }
  const int tokens = decode_tokens(dim, false);
  const int keys = decode_side_bytes(shape.key, tokens);
  const int values = decode_side_bytes(shape.value, tokens);
  if (decode_pieces(dim, false) > 1) {
    return {keys, keys + values, keys + values + sums};
  }
  // Sums take the place of keys.
  const int begin = keys > sums ? keys : sums;
  return {begin, 0, begin + values};
}
/** Of a block of threads: queries as operands, sums of weights, and what its
 * warps have. */
constexpr int decode_bytes(const KvShape& shape, int tiles) {
  const int dim = shape.key.head_dim;
  const int warps = decode_warps(dim, shape.key.code == KvCode::Dense);
  return tiles * (16 * dim + 4 * 4 * (1 + 2 * warps)) +
      warps * decode_memory(shape, tiles).bytes;
}

/** Partial sums of spans of keys: per (row, head, slot) a maximum, a sum of
 * weights and a weighted sum of values. */
struct Attend {
  KvShape shape;
  const AttendItem* items;
  const unsigned long long* blocks;
  const float* q; // [T, n_heads, head_dim], scaled and rotated
  int n_heads;
  int window;
  float softcap;
  int slots;
  float* partials; // [T, n_heads, slots, head_dim + 2]
  unsigned* arrived; // [tiles, n_kv_heads]: zeros before and behind
  /** Of attention_decode.cu, whose partials are weighted sums alone. */
  float* sums; // [T, n_heads, slots, 2]: maxima and sums of weights
  const float* q_factors; // of q, which are operands
  DecodeMemory memory; // of a warp
  int group; // n_heads / n_kv_heads
  unsigned group_inverse; // 2^20 / group, rounded up
  const float* rotation; // of values, [head_dim][head_dim], or null
  const float* gate; // of head 0 of row 0, heads 2 * head_dim apart; or null
  float* y; // [T, n_heads, head_dim]: rotated back and gated
};

// --- gated delta net ---------------------------------------------------------

struct StateSegment {
  int first_row;
  int rows;
  unsigned long long block; // state, then conv state
};

struct DeltaNet {
  const StateSegment* segments;
  const int* row_segments; // [T]
  int rows; // T
  int n_key_heads;
  int n_value_heads;
  int key_dim;
  int value_dim;
  int conv_kernel;
  float norm_eps;
  const float* qkv; // [T, channels]
  const float* z; // [T, Hv * Dv]
  const float* b; // [T, Hv]
  const float* a;
  const float* conv_weight; // [channels, conv_kernel]
  const float* a_log; // [Hv]
  const float* dt_bias;
  const float* norm; // [Dv]
  float* conv; // [T, channels]
  float* dots; // [T, Hk]: k . q
  float* decay; // [T, Hv]
  float* beta; // [T, Hv]
  float* y; // [T, Hv * Dv]
};

inline constexpr int kStateColumns = 32; // of one block
// Of one thread, which share most of what they read.
inline constexpr int kConvRows = 8;

/** The same of single rows, whose segments come with the launch; net.segments,
 * conv and what follows from it are not used. */
inline constexpr int kStepSegments = 64;
struct DeltaStep {
  DeltaNet net;
  unsigned* arrived; // [segments, key heads]: zeros before and behind
  StateSegment segments[kStepSegments];
};

// --- moves -------------------------------------------------------------------

/** Words that travel to the card with the launch, in structs of a few sizes:
 * arguments may take 32764 bytes. */
inline constexpr int kFewWords = 240;
inline constexpr int kSomeWords = 1000;
inline constexpr int kManyWords = 8000;

template <int kWords>
struct StoreWords {
  std::uint32_t* to;
  int words;
  std::uint32_t data[kWords];
};

/** Reads memory and does nothing else, to see how fast that is. */
struct ReadAll {
  const std::uint32_t* from;
  long long quads; // of words
  std::uint32_t* result;
};

} // namespace optiq::kernels::cuda
