#include "optiq/kernels/cuda/cuda_device.h"

#include <map>
#include <memory>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/kernels/cuda/block_memory.h"
#include "optiq/kernels/cuda/gradients.h"
#include "optiq/kernels/cuda/kernel_images.h"
#include "optiq/kernels/cuda/matrix.h"
#include "optiq/kernels/cuda/operations.h"

namespace optiq::kernels {
namespace {

/** Operations of gradients.h, by the same names. */
class CudaGradients final : public Gradients {
 public:
  explicit CudaGradients(cuda::Card& card) : card_(card) {}

  mx::array multiply(const mx::array& dy, const Matrix& weight) override {
    return cuda::gradients::multiply(card_, dy, weight);
  }
  mx::array outer(const mx::array& dy, const mx::array& x) override {
    return cuda::gradients::outer(card_, dy, x);
  }
  mx::array normalize(const mx::array& dy, const mx::array& x, const Norm& norm)
      override {
    return cuda::gradients::normalize(card_, dy, x, norm);
  }
  std::pair<mx::array, mx::array> glu(
      const mx::array& dy,
      const mx::array& gate,
      const mx::array& up,
      Activation activation) override {
    return cuda::gradients::glu(card_, dy, gate, up, activation);
  }
  mx::array softcap(const mx::array& dy, const mx::array& y, float cap)
      override {
    return cuda::gradients::softcap(card_, dy, y, cap);
  }
  mx::array columns(const mx::array& dy, int begin, int width) override {
    return cuda::gradients::columns(card_, dy, begin, width);
  }
  mx::array take_rows(const mx::array& dy, std::span<const int> rows, int n)
      override {
    return cuda::gradients::take_rows(card_, dy, rows, n);
  }
  AttentionGradients attend(
      const mx::array& dy,
      const mx::array& q,
      const mx::array& k,
      const mx::array& v,
      const AttentionRule& rule,
      std::span<const Segment> segments,
      int window) override {
    return cuda::gradients::attend(card_, dy, q, k, v, rule, segments, window);
  }
  DeltaNetInput gated_delta_net(
      const mx::array& dy,
      const DeltaNetInput& input,
      const DeltaNetWeights& weights,
      const DeltaNetShape& shape,
      std::span<const Segment> segments) override {
    return cuda::gradients::gated_delta_net(
        card_, dy, input, weights, shape, segments);
  }
  LogitLoss cross_entropy(
      const mx::array& logits,
      std::span<const std::int32_t> labels,
      std::span<const float> weights) override {
    return cuda::gradients::cross_entropy(card_, logits, labels, weights);
  }
  LogitLoss kl_divergence(
      const mx::array& reference,
      const mx::array& logits,
      std::span<const float> weights) override {
    return cuda::gradients::kl_divergence(card_, reference, logits, weights);
  }

 private:
  cuda::Card& card_;
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int index)
      : card_(cuda::system_driver(), index, cuda::kernel_images()),
        name_(
            index == 0 ? cuda::kDeviceName
                       : fmt::format("{}:{}", cuda::kDeviceName, index)),
        gradients_(card_) {}

  cuda::Card& card() {
    return card_;
  }
  Gradients& gradients() override {
    return gradients_;
  }

  const char* name() const override {
    return name_.c_str();
  }
  std::string arithmetic() const override {
    const cuda::CardInfo& info = card_.info();
    return fmt::format(
        "{}, sm_{}{}, float16 digits", info.name, info.major, info.minor);
  }
  /** From cuda::kMostEqualRows + 1 rows on other kernels attend, and on some
   * cards multiply. */
  bool has_exact_rows() const override {
    return false;
  }

  std::optional<std::uint64_t> own_bytes_left() const override {
    const cuda::Memory& memory = card_.memory();
    return memory.budget() - memory.used_bytes();
  }
  Matrix dense(const mx::array& weight) override {
    return cuda::dense_matrix(card_, weight);
  }
  Matrix quantized(
      const mx::array& weight,
      const mx::array& scales,
      const mx::array& biases,
      int bits,
      int group_size) override {
    return cuda::quantized_matrix(
        card_, weight, scales, biases, bits, group_size);
  }
  mx::array upload(const mx::array& host) override {
    const mx::array there = io::materialize(host);
    mx::array x = card_.make_array(there.shape(), there.dtype());
    card_.copy_in(
        card_.address("upload", x), there.data<void>(), there.nbytes());
    return x;
  }
  HostRows to_host(const mx::array& x) override {
    const cuda::PinnedBuffer memory = card_.memory().take_pinned(x.nbytes());
    card_.copy_out(memory.get(), card_.address("to_host", x), x.nbytes());
    return {
        {static_cast<const float*>(memory.get()), x.size()},
        x.ndim() == 0 ? 1 : x.shape(-1),
        memory};
  }
  KvFormat kv_format(KvFormat format) override {
    return cuda::kv_format(card_, std::move(format));
  }
  std::unique_ptr<BlockStore> make_block_store(
      std::size_t region_bytes) override {
    return std::make_unique<cuda::BlockMemory>(card_, region_bytes);
  }
  void finish(std::span<const mx::array>) override {
    card_.send(); // whoever reads results waits for them
  }

  mx::array reshape(const mx::array& x, const mx::Shape& shape) override {
    return cuda::reshape(card_, x, shape);
  }
  mx::array row_range(const mx::array& x, int begin, int n) override {
    return cuda::row_range(card_, x, begin, n);
  }
  mx::array take_rows(const mx::array& x, std::span<const int> rows) override {
    return cuda::take_rows(card_, x, rows);
  }
  mx::array concatenate(std::span<const mx::array> parts) override {
    return cuda::concatenate(card_, parts);
  }
  mx::array columns(const mx::array& x, int begin, int width) override {
    return cuda::columns(card_, x, begin, width);
  }

  std::vector<mx::array> multiply(const mx::array& x, const Product& product)
      override {
    return cuda::multiply(card_, x, product);
  }
  mx::array embed(
      std::span<const std::int32_t> ids,
      const Matrix& weight,
      float factor) override {
    return cuda::embed(card_, ids, weight, factor);
  }
  mx::array normalize(const mx::array& x, const Norm& norm) override {
    return cuda::normalize(card_, x, norm);
  }
  mx::array add(const mx::array& a, const mx::array& b) override {
    return cuda::add(card_, a, b);
  }
  mx::array scale(const mx::array& x, float factor) override {
    return cuda::scale(card_, x, factor);
  }
  mx::array glu(
      const mx::array& gate,
      const mx::array& up,
      Activation activation) override {
    return cuda::glu(card_, gate, up, activation);
  }
  mx::array softcap(const mx::array& x, float cap) override {
    return cuda::softcap(card_, x, cap);
  }
  mx::array sum_squares(const mx::array& x, int width, const mx::array* less)
      override {
    return cuda::sum_squares(card_, x, width, less);
  }
  mx::array attend(
      const mx::array& q,
      const mx::array& k,
      const mx::array& v,
      const AttentionRule& rule,
      std::span<const Segment> segments,
      const KvFormat& format) override {
    return cuda::attend(card_, q, k, v, rule, segments, format);
  }
  mx::array gated_delta_net(
      const DeltaNetInput& input,
      const DeltaNetWeights& weights,
      const DeltaNetShape& shape,
      std::span<const Segment> segments) override {
    return cuda::gated_delta_net(card_, input, weights, shape, segments);
  }

  std::vector<double> log_sum_exp(const mx::array& logits) override {
    return cuda::log_sum_exp(card_, logits);
  }
  std::vector<std::int32_t> argmax(const mx::array& logits) override {
    return cuda::argmax(card_, logits);
  }
  std::vector<float> pick(
      const mx::array& logits,
      std::span<const std::int32_t> ids) override {
    return cuda::pick(card_, logits, ids);
  }
  std::vector<double> kl_divergence(
      const mx::array& reference,
      const mx::array& logits) override {
    return cuda::kl_divergence(card_, reference, logits);
  }
  std::vector<BlockSums> block_sums(
      const mx::array& logits,
      std::span<const float> scales) override {
    return cuda::block_sums(card_, logits, scales);
  }
  HostRows take_blocks(
      const mx::array& logits,
      std::span<const LogitBlockId> blocks) override {
    return cuda::take_blocks(card_, logits, blocks);
  }

 private:
  cuda::Card card_;
  std::string name_;
  CudaGradients gradients_;
};

CudaDevice& opened_device(int index) {
  // Left to the driver at exit, as its context is. Opened before threads are.
  static auto* devices = new std::map<int, std::unique_ptr<CudaDevice>>;
  std::unique_ptr<CudaDevice>& device = (*devices)[index];
  if (!device) {
    device = std::make_unique<CudaDevice>(index);
  }
  return *device;
}

} // namespace

Device& cuda_device(int index) {
  return opened_device(index);
}

std::string why_no_cuda() {
  try {
    cuda_device(0);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

std::vector<cuda::CardInfo> cuda_cards() {
  return cuda::list_cards(cuda::system_driver());
}

double measure_cuda_read_bandwidth(int index) {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  constexpr int kRepeats = 5;
  return opened_device(index).card().measure_read_bandwidth(kBytes, kRepeats);
}

} // namespace optiq::kernels
