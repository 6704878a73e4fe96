#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <mlx/array.h>

#include "optiq/artifacts/kv_codec.h"

/**
 * The operations a forward is made of. On the CPU each runs at once, on the
 * shared thread pool, on evaluated row-contiguous arrays, and returns an
 * evaluated array: there is no graph on this path, so a step costs no node
 * overhead and errors come out where they are made. `portable.h` holds the
 * same operations as compositions of MLX ops: their oracle.
 *
 * Row independence: with fixed weights, SIMD target and Compute, row t of a
 * result depends on row t of the inputs alone (and on its own sequence), bit
 * for bit, whatever the number of rows or threads.
 *
 * Activations are float32. T = rows of the flat batch.
 */
namespace optiq::kernels {

namespace mx = mlx::core;

/** Arithmetic of a forward on quantized weights, where activations become one
 * or two int8 digits per value with a scale per 64. */
enum class Compute {
  Int8, // one digit (error of a product 6e-3), K/V in bfloat16
  Fast, // two digits (2e-5 .. 5e-5), K/V in bfloat16
  Exact, // two digits, K/V in float32
};

/** "int8", "fast" or "exact". */
const char* name_of(Compute compute);

/**
 * An immutable weight matrix [out, in], dense or affine-quantized, in the
 * layout the device wants. Dense weights stay where they are (a mapped file);
 * quantized ones are repacked once into panels of 16 rows.
 */
class Matrix {
 public:
  /** weight [out, in], bf16, f16 or f32; kept as it is. */
  static Matrix dense(mx::array weight);
  /** MLX's affine format: weight u32 [out, in*bits/32], scales and biases
   * [out, in/group] bf16, f16 or f32. Repacks (a copy of equal size). */
  static Matrix quantized(
      const mx::array& weight,
      const mx::array& scales,
      const mx::array& biases,
      int bits,
      int group_size);

  int out_features() const;
  int in_features() const;
  bool is_quantized() const;
  int bits() const; // 16 or 32 when dense
  int group_size() const; // 0 when dense
  /** Bytes resident for this matrix (mapped or packed). */
  std::uint64_t nbytes() const;

  struct Storage;
  const Storage& storage() const {
    return *storage_;
  }

 private:
  explicit Matrix(std::shared_ptr<const Storage> storage);
  std::shared_ptr<const Storage> storage_;
};

/** What rms_norm takes besides x. */
struct RowNorm {
  mx::array weight; // [in]
  float eps = 0.f;
};

/** y_i = x W_i^T for every W_i: x [T, in] -> y_i [T, out_i]. The rows of x are
 * quantized once for all matrices that share a group size. With a norm, x is
 * rms_norm(x): the same bits, in one pass. */
std::vector<mx::array> matmul(
    const mx::array& x,
    std::span<const Matrix* const> weights,
    Compute compute,
    const RowNorm* norm = nullptr);
mx::array matmul(const mx::array& x, const Matrix& weight, Compute compute);

/** add(residual, matmul(x, weight)), the same bits: residual [T, out]. */
mx::array matmul_add(
    const mx::array& x,
    const Matrix& weight,
    const mx::array& residual,
    Compute compute);

/** What is applied to the gate of a gated linear unit. */
enum class Activation { Silu, GeluTanh };

/** swiglu (Silu) or geglu (GeluTanh) of matmul(x, gate) and matmul(x, up), the
 * same bits; with a norm, x is rms_norm(x). */
mx::array matmul_glu(
    const mx::array& x,
    const Matrix& gate,
    const Matrix& up,
    Activation activation,
    Compute compute,
    const RowNorm* norm = nullptr);

/** Rows `ids` of an embedding matrix, dequantized: [T, in] f32. Ids are
 * checked by the caller. */
mx::array embed(std::span<const std::int32_t> ids, const Matrix& weight);

/** x * rsqrt(mean(x^2) + eps) * weight, over the last axis. x [..., D]. */
mx::array rms_norm(const mx::array& x, const mx::array& weight, float eps);

/** a + b, same shape. */
mx::array add(const mx::array& a, const mx::array& b);

/** silu(gate) * up, same shape. */
mx::array swiglu(const mx::array& gate, const mx::array& up);

/** gelu(gate) * up with the tanh approximation of gelu, same shape. */
mx::array geglu(const mx::array& gate, const mx::array& up);

/** cap * tanh(x / cap), cap > 0. */
mx::array softcap(const mx::array& x, float cap);

/** x * sigmoid(gate), same shape. */
mx::array sigmoid_gate(const mx::array& x, const mx::array& gate);

/** Rotary position embedding on the first `rotary_dim` of each head,
 * non-interleaved pairs (i, i + rotary_dim/2). x [T, n_heads, head_dim],
 * positions [T], inverse frequencies [rotary_dim/2]. */
mx::array rope(
    const mx::array& x,
    std::span<const std::int32_t> positions,
    std::span<const float> inverse_frequencies);

// --- attention over the block cache -----------------------------------------

inline constexpr int kKvBlockTokens = 64;

using artifacts::KvCodec;
using artifacts::KvMethod;
using artifacts::KvRotation;

/** From the seed of a layer's keys to that of its values. */
inline constexpr std::uint64_t kKvValueSeedStep = 500;

struct KvRotations; // of keys and of values

/**
 * How one layer's K and V lie in its blocks (64 tokens of one layer of one
 * sequence): the layer's shape and its codec, which has the layer's own seed.
 * Per kv head a block holds the keys, then the values, as cpu/kv_layout.h words
 * it.
 */
struct KvFormat {
  mx::Dtype dtype = mx::bfloat16; // of dense sides; or float32
  int n_kv_heads = 0;
  int head_dim = 0; // a multiple of 16 when packed, even in bfloat16
  int window = 0; // tokens a query sees, its own included; 0 = all before it

  KvCodec codec;
  Compute compute = Compute::Fast; // Exact: float32 meets codes and bfloat16
  std::shared_ptr<const KvRotations> rotations; // turbo: by make_kv_format

  std::size_t block_bytes() const;
};

/** The format, checked, with what its method needs made. Formats other than
 * dense come from here. Throws InvalidInput, or Unsupported for widths that no
 * method has, with the reason. */
KvFormat make_kv_format(KvFormat format);

/** The Lloyd-Max centroids of a standard normal variable at 1..5 bits,
 * ascending: what Turbo's codes index. */
std::vector<float> turbo_centroids(int bits);

/** Turbo's rotation of vectors x [..., dim]: of the last axis, by the matrix of
 * this kind and seed; `inverse` turns back. dim is a multiple of 16. */
mx::array rotate_vectors(
    const mx::array& x,
    KvRotation kind,
    std::uint64_t seed,
    bool inverse = false);

/** The rows of one sequence in a flat batch, with its blocks of one layer. */
struct AttentionSegment {
  int first_row = 0; // in the flat batch
  int rows = 0;
  int start = 0; // absolute position of the first row
  /** By absolute position / 64, up to start + rows tokens. May be null where
   * the window hides a whole block from every row. */
  std::span<std::byte* const> blocks;
};

/**
 * Writes k, v [T, n_kv_heads, head_dim] into the blocks at the rows' absolute
 * positions, then attends causally, within the format's window: q [T, n_heads,
 * head_dim] -> [T, n_heads, head_dim]. Scores are q.k * scale; softmax and sums
 * in float32, over absolute spans of 256 tokens that are then added in order.
 * Query head h reads kv head h / (n_heads / n_kv_heads).
 * k and v may both have 0 rows: the blocks hold those of the rows already, as
 * where a layer attends to another layer's K/V.
 */
mx::array append_and_attend(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    std::span<const AttentionSegment> segments,
    const KvFormat& format,
    float scale);

/** The first half alone, for rows that no query reads now. */
void append_kv(
    const mx::array& k,
    const mx::array& v,
    std::span<const AttentionSegment> segments,
    const KvFormat& format);

// --- gated delta net
// -----------------------------------------------------------

/** Shapes of a gated delta net layer (Qwen3.5; arXiv 2412.06464). */
struct DeltaNetShape {
  int n_key_heads = 0;
  int n_value_heads = 0;
  int key_dim = 0; // per head
  int value_dim = 0; // per head
  int conv_kernel = 4;

  int qkv_dim() const {
    return 2 * n_key_heads * key_dim + n_value_heads * value_dim;
  }
  /** Floats of one sequence's conv state: the last conv_kernel - 1 rows. */
  std::size_t conv_floats() const {
    return static_cast<std::size_t>(conv_kernel - 1) * qkv_dim();
  }
  /** Floats of one sequence's recurrent state S^T [Hv][Dk][Dv]. */
  std::size_t state_floats() const {
    return static_cast<std::size_t>(n_value_heads) * key_dim * value_dim;
  }
};

/** Constant tensors of one layer, all float32. */
struct DeltaNetWeights {
  mx::array conv; // [qkv_dim, conv_kernel]
  mx::array a_log; // [n_value_heads]
  mx::array dt_bias; // [n_value_heads]
  mx::array norm; // [value_dim]
  float norm_eps = 1e-6f;
};

/** The rows of one sequence, with its state, updated in place. */
struct DeltaNetSegment {
  int first_row = 0;
  int rows = 0;
  float* conv_state = nullptr; // [conv_kernel - 1][qkv_dim], oldest row first
  float* state = nullptr; // [Hv][Dk][Dv]
};

/**
 * Everything between the input projections and out_proj: causal conv + silu,
 * q/k normalization, gates, the recurrence, gated RMSNorm.
 * qkv [T, qkv_dim], z [T, Hv * Dv], b and a [T, Hv] -> [T, Hv * Dv].
 */
mx::array gated_delta_net(
    const mx::array& qkv,
    const mx::array& z,
    const mx::array& b,
    const mx::array& a,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const DeltaNetSegment> segments);

// --- reductions over the vocabulary
// ----------------------------------------------

/** Per row: log-sum-exp of logits [T, V], natural log -> [T]. */
std::vector<double> log_sum_exp(const mx::array& logits);

/** Per row: index of the largest logit (lowest index on ties). */
std::vector<std::int32_t> argmax(const mx::array& logits);

/** Per row: KL(softmax(reference) || softmax(logits)), nats, accumulated in
 * double. Both [T, V] f32. */
std::vector<double> kl_divergence(
    const mx::array& reference,
    const mx::array& logits);

// --- quantization
// -----------------------------------------------------------------

/** MLX's affine triple. */
struct AffineWeights {
  mx::array weight; // u32 [out, in*bits/32]
  mx::array scales; // [out, in/group], dtype of the source
  mx::array biases; // [out, in/group]
};

/** Quantizes w [out, in] exactly as mx::quantize does (bit for bit), bits 2, 3,
 * 4, 5, 6, 8; groups 32, 64, 128 along `in`. Throws InvalidInput. */
AffineWeights quantize_affine(const mx::array& w, int bits, int group_size);

// --- machine
// -----------------------------------------------------------------------

/** Name of the SIMD target in use: "AVX3_ZEN4", "AVX2", "SSE2", "NEON"... */
std::string simd_target();
/** Targets this build can run here. */
std::vector<std::string> simd_targets();
/** Forces a target (also OPTIQ_SIMD, read once at start-up by the CLI).
 * Throws InvalidInput naming the targets available. "" = the best. */
void force_simd_target(const std::string& name);

/** Read bandwidth of the pool over `bytes` of memory, bytes per second: best of
 * `repeats`. */
double measure_read_bandwidth(std::size_t bytes, int repeats);
/** Peak of the int8 dot instruction over the pool, multiply-adds per second. */
double measure_int8_dot_peak(int repeats);

} // namespace optiq::kernels
