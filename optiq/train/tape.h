#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "optiq/kernels/gradients.h"
#include "optiq/train/dropout.h"

namespace optiq::train {

namespace mx = mlx::core;

/** A use of a weight matrix, when the gradient of what came out is there:
 * dL/dW = dy^T x of a product; of a lookup, dy added up by id. */
struct WeightUse {
  const kernels::Matrix& weight; // [out, in]
  const mx::array* x = nullptr; // [T, in], of a product
  std::span<const std::int32_t> ids; // of a lookup: T rows
  const mx::array& dy; // [T, out]; of a lookup [T, in], of W's rows
};
using WeightVisitor = std::function<void(const WeightUse&)>;

/**
 * A device before another one that notes the operations it passes on, and goes
 * back through them: automatic differentiation of whatever runs on it, which
 * knows nothing of that. A model on a tape (models::run_on) is differentiated
 * by its own forward.
 *
 * Only what depends on a watched array is noted. Operations run as they would
 * without a tape, so results are the same bits, but where dropout is asked for;
 * and attention and delta nets are those of whole sequences: every segment
 * starts at position 0, whatever its blocks hold. Arrays are those of the inner
 * device.
 */
class Tape final : public kernels::Device {
 public:
  explicit Tape(kernels::Device& device);

  // --- differentiation ------------------------------------------------------

  /** Everything but the visitor: an empty tape that notes nothing. */
  void forget();
  /** From now on operations are noted, or no longer. */
  void note(bool is_noting) {
    is_noting_ = is_noting;
  }
  /** Makes the gradient of x wanted. */
  void watch(const mx::array& x);
  /** Is shown every use of a matrix on the way back, and makes all of them
   * wanted, lookups included. */
  void watch_weights(WeightVisitor visitor) {
    visitor_ = std::move(visitor);
  }
  /** Of what low-rank updates read, from now on, noted or not. */
  void drop_out(Dropout dropout) {
    dropout_ = std::move(dropout);
  }
  /** Keeps K and V of every layer: for models whose layers read those of
   * others. */
  void keep_kv(bool keeps_kv) {
    keeps_kv_ = keeps_kv;
  }
  std::size_t position() const {
    return records_.size();
  }
  /** Adds to dL/dx, of which going back begins. */
  void add_gradient(const mx::array& x, const mx::array& gradient);
  /** Goes back through what was noted behind `position`, and forgets it; then
   * nothing is noted. */
  void go_back(std::size_t position);
  /** dL/dx of a watched array, if there was any; x is watched no longer. */
  std::optional<mx::array> take_gradient(const mx::array& x);

  kernels::Device& inner() {
    return device_;
  }

  // --- kernels::Device ------------------------------------------------------

  /** The inner device's: they are not noted. */
  kernels::Gradients& gradients() override {
    return gradients_;
  }
  const char* name() const override {
    return device_.name();
  }
  std::string arithmetic() const override {
    return device_.arithmetic();
  }
  bool has_exact_rows() const override {
    return device_.has_exact_rows();
  }
  kernels::Matrix dense(const mx::array& weight) override {
    return device_.dense(weight);
  }
  kernels::Matrix quantized(
      const mx::array& weight,
      const mx::array& scales,
      const mx::array& biases,
      int bits,
      int group_size) override {
    return device_.quantized(weight, scales, biases, bits, group_size);
  }
  mx::array upload(const mx::array& host) override {
    return device_.upload(host);
  }
  kernels::HostRows to_host(const mx::array& x) override {
    return device_.to_host(x);
  }
  kernels::KvFormat kv_format(kernels::KvFormat format) override {
    return device_.kv_format(std::move(format));
  }
  std::unique_ptr<kernels::BlockStore> make_block_store(
      std::size_t region_bytes) override {
    return device_.make_block_store(region_bytes);
  }
  void finish(std::span<const mx::array> results) override {
    device_.finish(results);
  }
  mx::array reshape(const mx::array& x, const mx::Shape& shape) override;
  mx::array row_range(const mx::array& x, int begin, int n) override;
  mx::array take_rows(const mx::array& x, std::span<const int> rows) override;
  mx::array concatenate(std::span<const mx::array> parts) override;
  mx::array columns(const mx::array& x, int begin, int width) override;
  std::vector<mx::array> multiply(
      const mx::array& x,
      const kernels::Product& product) override;
  mx::array embed(
      std::span<const std::int32_t> ids,
      const kernels::Matrix& weight,
      float scale) override;
  mx::array normalize(const mx::array& x, const kernels::Norm& norm) override;
  mx::array add(const mx::array& a, const mx::array& b) override;
  mx::array scale(const mx::array& x, float factor) override;
  mx::array glu(
      const mx::array& gate,
      const mx::array& up,
      kernels::Activation activation) override;
  mx::array softcap(const mx::array& x, float cap) override;
  mx::array attend(
      const mx::array& q,
      const mx::array& k,
      const mx::array& v,
      const kernels::AttentionRule& rule,
      std::span<const kernels::Segment> segments,
      const kernels::KvFormat& format) override;
  mx::array gated_delta_net(
      const kernels::DeltaNetInput& input,
      const kernels::DeltaNetWeights& weights,
      const kernels::DeltaNetShape& shape,
      std::span<const kernels::Segment> segments) override;
  /** Of numbers that nothing goes back through. */
  mx::array sum_squares(const mx::array& x, int width, const mx::array* less)
      override {
    return device_.sum_squares(x, width, less);
  }
  std::vector<double> log_sum_exp(const mx::array& logits) override {
    return device_.log_sum_exp(logits);
  }
  std::vector<std::int32_t> argmax(const mx::array& logits) override {
    return device_.argmax(logits);
  }
  std::vector<float> pick(
      const mx::array& logits,
      std::span<const std::int32_t> ids) override {
    return device_.pick(logits, ids);
  }
  std::vector<double> kl_divergence(
      const mx::array& reference,
      const mx::array& logits) override {
    return device_.kl_divergence(reference, logits);
  }
  std::vector<kernels::BlockSums> block_sums(
      const mx::array& logits,
      std::span<const float> scales) override {
    return device_.block_sums(logits, scales);
  }
  kernels::HostRows take_blocks(
      const mx::array& logits,
      std::span<const kernels::LogitBlockId> blocks) override {
    return device_.take_blocks(logits, blocks);
  }

 private:
  /** An array by the handle that stands for it: copies share it. */
  using Key = std::uintptr_t;
  /** What goes back through one operation, from dL/dy. */
  using Backward = std::function<void(const mx::array& dy)>;
  struct Record {
    mx::array y; // [...], what came out
    Backward backward;
  };
  /** K and V of a layer as projected, with its rule. */
  struct KeysAndValues {
    mx::array k; // [T, n_kv_heads * head_dim]
    mx::array v; // [T, n_kv_heads * head_dim]
    kernels::AttentionRule rule;
  };
  struct KvGradients {
    mx::array k; // [T, n_kv_heads * head_dim]
    mx::array v; // [T, n_kv_heads * head_dim]
  };

  bool is_wanted(const mx::array& x) const {
    return is_noting_ && wanted_.contains(x.id());
  }
  /** y, which is noted where it is needed. */
  mx::array noted(bool is_needed, const mx::array& y, Backward backward);
  /** Adds to dL/dx where it is wanted: the gradient is made only then. */
  void pass(const mx::array& x, const std::function<mx::array()>& gradient);

  bool is_needed(const mx::array& x, const kernels::Product& product) const;
  bool drops_out(const kernels::Product& product) const;
  /** The projections of rows x without norm or activation, whose updates read
   * what dropout leaves of x. */
  std::vector<mx::array> multiply_dropped(
      const mx::array& x,
      const kernels::Product& product);
  /** What the update reads of x: its rows, as dropout leaves them. */
  mx::array input_of(const mx::array& x, const kernels::LowRankUpdate& update);
  /** y = x W^T for a dense W. */
  mx::array through(const mx::array& x, const mx::array& weight);
  /** Rows of an update among all n, zero elsewhere. */
  mx::array
  spread(const mx::array& rows, const kernels::LowRankUpdate& update, int n);
  void note_projection(
      const mx::array& x,
      const kernels::Projection& projection,
      const mx::array* residual,
      const mx::array& y);
  void pass_update(
      const mx::array& x,
      const kernels::LowRankUpdate& update,
      const mx::array& dy);

  kernels::Device& device_;
  kernels::Gradients& gradients_;
  std::unique_ptr<kernels::BlockStore> states_; // scratch of delta nets
  WeightVisitor visitor_;
  Dropout dropout_;
  bool is_noting_ = false;
  bool keeps_kv_ = false;
  std::vector<Record> records_;
  std::unordered_set<Key> wanted_;
  std::unordered_map<Key, mx::array> gradients_of_;
  /** By the first block of the layer that has them: a later layer may read
   * them there. */
  std::map<kernels::BlockId, KeysAndValues> kv_;
  std::map<kernels::BlockId, KvGradients> kv_gradients_;
};

} // namespace optiq::train
