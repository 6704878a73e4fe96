#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <mlx/array.h>

#include "optiq/kernels/device.h"

namespace optiq::kernels {

/** dL/dq, dL/dk and dL/dv of an attention, in the shapes of q, k and v. */
struct AttentionGradients {
  mx::array q; // [T, n_heads * head_dim (twice with a gate)]
  mx::array k; // [T, n_kv_heads * head_dim]
  mx::array v; // [T, n_kv_heads * head_dim]
};

/** Of the rows of logits: what each costs, and the way down. */
struct LogitLoss {
  std::vector<double> losses; // nats
  mx::array gradient; // [T, V] of the sum of weight t * loss t
};

/**
 * The derivatives of a device's operations: each method has the name of the
 * operation y = f(x) and makes dL/dx of dL/dy and what went in. They are named
 * like the operations, take arrays of the same device and shapes, run when and
 * where these run, and throw as they do. Sums have a fixed order: neither other
 * rows of a batch nor the number of threads change a bit on the CPU.
 *
 * Weights of the base are constants; what is trained is dense: `outer` makes
 * dL/dW.
 */
class Gradients {
 public:
  virtual ~Gradients() = default;

  /** Of y = x W^T: dy [T, out] -> dy W [T, in]. Codes stay codes. */
  virtual mx::array multiply(const mx::array& dy, const Matrix& weight) = 0;
  /** Of y = x W^T, for W: dy [T, out], x [T, in] -> dy^T x [out, in]. */
  virtual mx::array outer(const mx::array& dy, const mx::array& x) = 0;
  virtual mx::array
  normalize(const mx::array& dy, const mx::array& x, const Norm& norm) = 0;
  /** {for gate, for up}. */
  virtual std::pair<mx::array, mx::array> glu(
      const mx::array& dy,
      const mx::array& gate,
      const mx::array& up,
      Activation activation) = 0;
  /** `y` is what softcap gave. */
  virtual mx::array
  softcap(const mx::array& dy, const mx::array& y, float cap) = 0;
  /** Columns [begin, begin + dy's) of [T, width]; zero elsewhere. */
  virtual mx::array columns(const mx::array& dy, int begin, int width) = 0;
  /** Rows of [n, D], ascending; zero elsewhere. */
  virtual mx::array
  take_rows(const mx::array& dy, std::span<const int> rows, int n) = 0;

  /** Of whole sequences: every segment starts at position 0, and k and v have
   * the rows of q. Their blocks are not looked at. */
  virtual AttentionGradients attend(
      const mx::array& dy,
      const mx::array& q,
      const mx::array& k,
      const mx::array& v,
      const AttentionRule& rule,
      std::span<const Segment> segments,
      int window) = 0;
  /** Of whole sequences, which start from a state of zeros. */
  virtual DeltaNetInput gated_delta_net(
      const mx::array& dy,
      const DeltaNetInput& input,
      const DeltaNetWeights& weights,
      const DeltaNetShape& shape,
      std::span<const Segment> segments) = 0;

  /** -log softmax(logits[t])[label t]: logits [T, V], labels [T] below V,
   * weights [T]. */
  virtual LogitLoss cross_entropy(
      const mx::array& logits,
      std::span<const std::int32_t> labels,
      std::span<const float> weights) = 0;
  /** KL(softmax(reference[t]) || softmax(logits[t])), for the logits: both
   * [T, V], weights [T]. */
  virtual LogitLoss kl_divergence(
      const mx::array& reference,
      const mx::array& logits,
      std::span<const float> weights) = 0;
};

} // namespace optiq::kernels
