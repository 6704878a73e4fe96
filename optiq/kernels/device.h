#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <mlx/array.h>

#include "optiq/kernels/attention.h"
#include "optiq/kernels/block_store.h"
#include "optiq/kernels/delta_net.h"
#include "optiq/kernels/kv_format.h"
#include "optiq/kernels/logit_blocks.h"
#include "optiq/kernels/matrix.h"

namespace optiq::kernels {

/** RMSNorm (arXiv 1910.07467), x * rsqrt(mean(x^2) + eps) * weight, or
 * LayerNorm (arXiv 1607.06450), (x - mean(x)) * rsqrt(variance(x) + eps) *
 * weight + bias; over the last axis. */
struct Norm {
  mx::array weight; // [D]
  float eps = 0.f;
  bool is_layer_norm = false;
  std::optional<mx::array> bias; // [D], of a LayerNorm
};

/** What is applied to the gate of a gated linear unit. */
enum class Activation { Silu, GeluTanh }; // gelu by its tanh approximation

/** What an adapter adds to a projection of some rows: scale (x A^T) B^T (LoRA,
 * arXiv 2106.09685). */
struct LowRankUpdate {
  int first_row = 0;
  int rows = 0;
  mx::array a; // [rank, in], f32, f16 or bf16; summed in f32
  mx::array b; // [rank, out]: transposed, both are read in long rows
  float scale = 1.f;
};

/** y = x W^T + bias, and what adapters add. */
struct Projection {
  const Matrix* weight = nullptr;
  const mx::array* bias = nullptr; // [out] f32, or nothing
  std::span<const LowRankUpdate> updates; // added in this order
};

/** Projections of the same rows x [T, in], with what comes before and after
 * them. */
struct Product {
  std::vector<Projection> projections;
  const Norm* norm = nullptr; // x is norm(x)
  /** Of two projections, gate and up, one result: activation(gate) * up. */
  std::optional<Activation> activation;
  /** [T, out], added to the result of a single projection. */
  const mx::array* residual = nullptr;
  Compute compute = Compute::Fast;
};

/** Float32 values that left a device, row by row. */
class HostRows {
 public:
  /** `values` [rows, width] stay valid as long as `owner` lives. */
  HostRows(
      std::span<const float> values,
      int width,
      std::shared_ptr<const void> owner)
      : values_(values), width_(width), owner_(std::move(owner)) {}

  std::span<const float> all() const {
    return values_;
  }
  std::span<const float> row(int index) const {
    return values_.subspan(
        static_cast<std::size_t>(index) * width_,
        static_cast<std::size_t>(width_));
  }

 private:
  std::span<const float> values_;
  int width_;
  std::shared_ptr<const void> owner_;
};

class Gradients;

/**
 * Where matrices lie and operations run: the operations that a forward is made
 * of. Arrays are handles: only the device that made one reads it, what it holds
 * may not be there yet, and `upload` and `to_host` are the only ways in and
 * out. On the CPU an operation has ended when it returns; other devices finish
 * what they were asked for when `to_host` or a reduction asks, or at `finish`.
 *
 * Row independence: with fixed weights, device and Compute, row t of a result
 * depends on row t of the inputs alone (and on its own sequence), bit for bit
 * (but has_exact_rows), whatever the number of rows.
 *
 * T = rows of the flat batch; activations are float32 [T, ...] on the CPU.
 * Operations throw InvalidInput for arrays that do not fit, Exhausted where
 * memory ends. One thread at a time, but any of them on the CPU.
 */
class Device {
 public:
  virtual ~Device() = default;

  /** The derivatives of these operations (gradients.h). */
  virtual Gradients& gradients() = 0;
  virtual const char* name() const = 0; // "cpu", "mlx"
  /** What decides the bits of results besides Compute: the SIMD target, or
   * where MLX runs. */
  virtual std::string arithmetic() const = 0;
  /** Whether row independence is bit for bit; else it is up to rounding. */
  virtual bool has_exact_rows() const {
    return true;
  }

  // --- memory ---------------------------------------------------------------

  /** Bytes that arrays and blocks may still take of a memory of the device's
   * own; none where they lie in the host's. */
  virtual std::optional<std::uint64_t> own_bytes_left() const {
    return std::nullopt;
  }
  /** weight [out, in], bf16, f16 or f32, of the host or the device's own; kept
   * as it is. */
  virtual Matrix dense(const mx::array& weight) = 0;
  /** MLX's affine format: weight u32 [out, in*bits/32], scales and biases
   * [out, in/group] bf16, f16 or f32. */
  virtual Matrix quantized(
      const mx::array& weight,
      const mx::array& scales,
      const mx::array& biases,
      int bits,
      int group_size) = 0;
  /** A host array of float32; of a low-rank update also f16 or bf16. */
  virtual mx::array upload(const mx::array& host) = 0;
  /** x [rows..., width], when it is there. */
  virtual HostRows to_host(const mx::array& x) = 0;
  /** The format, checked, with the layout of its blocks on this device. Throws
   * InvalidInput, or Unsupported for widths that no method has, with the
   * reason. */
  virtual KvFormat kv_format(KvFormat format) = 0;
  /** Memory for blocks, taken from the system `region_bytes` at a time. */
  virtual std::unique_ptr<BlockStore> make_block_store(
      std::size_t region_bytes) = 0;
  /** Ends the step: what was asked for so far is computed, blocks are written,
   * and `results` are there; or all of it is on its way, and who reads it
   * waits. */
  virtual void finish(std::span<const mx::array> results) = 0;

  // --- views and small moves ------------------------------------------------

  virtual mx::array reshape(const mx::array& x, const mx::Shape& shape) = 0;
  /** Rows [begin, begin + n) of the first axis. */
  virtual mx::array row_range(const mx::array& x, int begin, int n) = 0;
  /** Rows, ascending, of x [T, width]. */
  virtual mx::array take_rows(
      const mx::array& x,
      std::span<const int> rows) = 0;
  /** Rows of several arrays [*, width], one after another. */
  virtual mx::array concatenate(std::span<const mx::array> parts) = 0;
  /** Columns [begin, begin + width) of x [T, ...]. */
  virtual mx::array columns(const mx::array& x, int begin, int width) = 0;

  // --- operations -----------------------------------------------------------

  /** One result per projection, [T, out], or one in all with an activation. */
  virtual std::vector<mx::array> multiply(
      const mx::array& x,
      const Product& product) = 0;
  /** Rows `ids` of an embedding matrix, times scale: [T, in]. Ids are checked
   * by the caller. */
  virtual mx::array embed(
      std::span<const std::int32_t> ids,
      const Matrix& weight,
      float scale = 1.f) = 0;
  /** x [..., D]. */
  virtual mx::array normalize(const mx::array& x, const Norm& norm) = 0;
  virtual mx::array add(const mx::array& a, const mx::array& b) = 0;
  virtual mx::array scale(const mx::array& x, float factor) = 0;
  /** activation(gate) * up. */
  virtual mx::array
  glu(const mx::array& gate, const mx::array& up, Activation activation) = 0;
  /** cap * tanh(x / cap), cap > 0. */
  virtual mx::array softcap(const mx::array& x, float cap) = 0;
  /** Sums of the squares of `width` numbers side by side, of x or of x - less:
   * [T, n * width] -> [T, n]. */
  virtual mx::array sum_squares(
      const mx::array& x,
      int width,
      const mx::array* less = nullptr) = 0;

  /**
   * Everything between the projections of attention: q [T, n_heads * head_dim
   * (twice with a gate)] and k, v [T, n_kv_heads * head_dim] -> [T, n_heads *
   * head_dim]. K/V are written into the blocks at their absolute positions, and
   * every row attends to those at and before its own, within the format's
   * window; query head h reads kv head h / (n_heads / n_kv_heads). k and v may
   * both have 0 rows: the blocks hold those of the rows already, as where a
   * layer reads another layer's K/V.
   */
  virtual mx::array attend(
      const mx::array& q,
      const mx::array& k,
      const mx::array& v,
      const AttentionRule& rule,
      std::span<const Segment> segments,
      const KvFormat& format) = 0;

  /** Everything between the projections of a gated delta net: causal conv and
   * silu, q/k normalization, gates, the recurrence, gated RMSNorm -> [T, Hv *
   * Dv]. Each segment's only block holds state_floats, then conv_floats, and
   * moves on. */
  virtual mx::array gated_delta_net(
      const DeltaNetInput& input,
      const DeltaNetWeights& weights,
      const DeltaNetShape& shape,
      std::span<const Segment> segments) = 0;

  // --- reductions over the vocabulary, to the host --------------------------

  /** Per row of logits [T, V]: log-sum-exp, natural log. */
  virtual std::vector<double> log_sum_exp(const mx::array& logits) = 0;
  /** Per row: index of the largest logit (lowest index on ties). */
  virtual std::vector<std::int32_t> argmax(const mx::array& logits) = 0;
  /** logits[t][ids[t]]. */
  virtual std::vector<float> pick(
      const mx::array& logits,
      std::span<const std::int32_t> ids) = 0;
  /** Per row: KL(softmax(reference) || softmax(logits)) in nats. */
  virtual std::vector<double> kl_divergence(
      const mx::array& reference,
      const mx::array& logits) = 0;
  /** Per row of logits [T, V], V > 0: what its blocks add up to at its scale,
   * with the same bits on every device. scales [T], > 0. */
  virtual std::vector<BlockSums> block_sums(
      const mx::array& logits,
      std::span<const float> scales) = 0;
  /** Blocks of logits [T, V], each a row [kLogitBlock], -inf behind the end of
   * theirs. */
  virtual HostRows take_blocks(
      const mx::array& logits,
      std::span<const LogitBlockId> blocks) = 0;
};

/** The CPU: own kernels on the shared thread pool. */
Device& cpu_device();

} // namespace optiq::kernels
