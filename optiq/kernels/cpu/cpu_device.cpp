#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/kernels/checks_impl.h"
#include "optiq/kernels/cpu/block_memory.h"
#include "optiq/kernels/cpu/gradients.h"
#include "optiq/kernels/cpu/kv_format.h"
#include "optiq/kernels/cpu/matrix.h"
#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/machine.h"

namespace optiq::kernels {
namespace {

class CpuGradients final : public Gradients {
 public:
  mx::array multiply(const mx::array& dy, const Matrix& weight) override {
    return cpu::gradients::multiply(dy, weight);
  }
  mx::array outer(const mx::array& dy, const mx::array& x) override {
    return cpu::gradients::outer(dy, x);
  }
  mx::array normalize(const mx::array& dy, const mx::array& x, const Norm& norm)
      override {
    return cpu::gradients::normalize(dy, x, norm);
  }
  std::pair<mx::array, mx::array> glu(
      const mx::array& dy,
      const mx::array& gate,
      const mx::array& up,
      Activation activation) override {
    return cpu::gradients::glu(dy, gate, up, activation);
  }
  mx::array softcap(const mx::array& dy, const mx::array& y, float cap)
      override {
    return cpu::gradients::softcap(dy, y, cap);
  }
  mx::array columns(const mx::array& dy, int begin, int width) override {
    return cpu::gradients::columns(dy, begin, width);
  }
  mx::array take_rows(const mx::array& dy, std::span<const int> rows, int n)
      override {
    return cpu::gradients::take_rows(dy, rows, n);
  }
  AttentionGradients attend(
      const mx::array& dy,
      const mx::array& q,
      const mx::array& k,
      const mx::array& v,
      const AttentionRule& rule,
      std::span<const Segment> segments,
      int window) override {
    return cpu::gradients::attend(dy, q, k, v, rule, segments, window);
  }
  DeltaNetInput gated_delta_net(
      const mx::array& dy,
      const DeltaNetInput& input,
      const DeltaNetWeights& weights,
      const DeltaNetShape& shape,
      std::span<const Segment> segments) override {
    return cpu::gradients::gated_delta_net(dy, input, weights, shape, segments);
  }
  LogitLoss cross_entropy(
      const mx::array& logits,
      std::span<const std::int32_t> labels,
      std::span<const float> weights) override {
    return cpu::gradients::cross_entropy(logits, labels, weights);
  }
  LogitLoss kl_divergence(
      const mx::array& reference,
      const mx::array& logits,
      std::span<const float> weights) override {
    return cpu::gradients::kl_divergence(reference, logits, weights);
  }
};

/** Operations run at once: nothing is ever pending. */
class CpuDevice final : public Device {
 public:
  Gradients& gradients() override {
    return gradients_;
  }

  const char* name() const override {
    return cpu::kDeviceName;
  }
  std::string arithmetic() const override {
    return simd_target();
  }

  Matrix dense(const mx::array& weight) override {
    return cpu::dense_matrix(weight);
  }
  Matrix quantized(
      const mx::array& weight,
      const mx::array& scales,
      const mx::array& biases,
      int bits,
      int group_size) override {
    return cpu::quantized_matrix(weight, scales, biases, bits, group_size);
  }
  mx::array upload(const mx::array& host) override {
    return io::materialize(host);
  }
  HostRows to_host(const mx::array& x) override {
    const auto there = std::make_shared<mx::array>(
        require_floats("to_host", "x", x, x.shape()));
    return {
        io::floats(*there), there->ndim() == 0 ? 1 : there->shape(-1), there};
  }
  KvFormat kv_format(KvFormat format) override {
    return cpu::kv_format(std::move(format));
  }
  std::unique_ptr<BlockStore> make_block_store(
      std::size_t region_bytes) override {
    return std::make_unique<cpu::BlockMemory>(region_bytes);
  }
  void finish(std::span<const mx::array>) override {}

  mx::array reshape(const mx::array& x, const mx::Shape& shape) override {
    return io::reshaped(x, shape);
  }
  mx::array row_range(const mx::array& x, int begin, int n) override {
    return io::row_range(x, begin, n);
  }
  mx::array take_rows(const mx::array& x, std::span<const int> rows) override {
    return io::take_rows(x, rows);
  }
  mx::array concatenate(std::span<const mx::array> parts) override {
    return cpu::concatenate(parts);
  }
  mx::array columns(const mx::array& x, int begin, int width) override {
    return cpu::columns(x, begin, width);
  }

  std::vector<mx::array> multiply(const mx::array& x, const Product& product)
      override {
    return cpu::multiply(x, product);
  }
  mx::array embed(
      std::span<const std::int32_t> ids,
      const Matrix& weight,
      float factor) override {
    return cpu::embed(ids, weight, factor);
  }
  mx::array normalize(const mx::array& x, const Norm& norm) override {
    return cpu::normalize(x, norm);
  }
  mx::array add(const mx::array& a, const mx::array& b) override {
    return cpu::add(a, b);
  }
  mx::array scale(const mx::array& x, float factor) override {
    return cpu::scale(x, factor);
  }
  mx::array glu(
      const mx::array& gate,
      const mx::array& up,
      Activation activation) override {
    return cpu::glu(gate, up, activation);
  }
  mx::array softcap(const mx::array& x, float cap) override {
    return cpu::softcap(x, cap);
  }
  mx::array sum_squares(const mx::array& x, int width, const mx::array* less)
      override {
    return cpu::sum_squares(x, width, less);
  }
  mx::array attend(
      const mx::array& q,
      const mx::array& k,
      const mx::array& v,
      const AttentionRule& rule,
      std::span<const Segment> segments,
      const KvFormat& format) override {
    return cpu::attend(q, k, v, rule, segments, format);
  }
  mx::array gated_delta_net(
      const DeltaNetInput& input,
      const DeltaNetWeights& weights,
      const DeltaNetShape& shape,
      std::span<const Segment> segments) override {
    return cpu::gated_delta_net(input, weights, shape, segments);
  }

  std::vector<double> log_sum_exp(const mx::array& logits) override {
    return cpu::log_sum_exp(logits);
  }
  std::vector<std::int32_t> argmax(const mx::array& logits) override {
    return cpu::argmax(logits);
  }
  std::vector<float> pick(
      const mx::array& logits,
      std::span<const std::int32_t> ids) override {
    return cpu::pick(logits, ids);
  }
  std::vector<double> kl_divergence(
      const mx::array& reference,
      const mx::array& logits) override {
    return cpu::kl_divergence(reference, logits);
  }
  std::vector<BlockSums> block_sums(
      const mx::array& logits,
      std::span<const float> scales) override {
    return cpu::block_sums(logits, scales);
  }
  HostRows take_blocks(
      const mx::array& logits,
      std::span<const LogitBlockId> blocks) override {
    return cpu::take_blocks(logits, blocks);
  }

 private:
  CpuGradients gradients_;
};

} // namespace

Device& cpu_device() {
  static CpuDevice device;
  return device;
}

} // namespace optiq::kernels
