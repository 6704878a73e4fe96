#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/kernels/gradients.h"

namespace optiq::testing {

namespace mx = mlx::core;

/** Arrays by the address of the handle that stands for them. */
using HandleTable = std::unordered_map<const void*, mx::array>;

/** Address space that nobody may read or write, with a page in front that MLX
 * may: it looks at the bytes before an array's data. */
class UnreadableMemory {
 public:
  UnreadableMemory(std::size_t bytes, std::shared_ptr<HandleTable> table)
      : page_(static_cast<std::size_t>(::sysconf(_SC_PAGESIZE))),
        size_(page_ + (bytes / page_ + 1) * page_),
        table_(std::move(table)) {
    void* all =
        ::mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || ::mprotect(all, page_, PROT_READ) != 0) {
      fail(ErrorKind::Exhausted, "[UnreadableMemory] no address space");
    }
    start_ = static_cast<char*>(all);
  }
  ~UnreadableMemory() {
    table_->erase(data());
    ::munmap(start_, size_);
  }
  UnreadableMemory(const UnreadableMemory&) = delete;
  UnreadableMemory& operator=(const UnreadableMemory&) = delete;

  const void* data() const {
    return start_ + page_;
  }

 private:
  std::size_t page_;
  std::size_t size_;
  std::shared_ptr<HandleTable> table_;
  char* start_ = nullptr;
};

/** Blocks of another store under numbers that are no addresses. */
class NumberedBlocks final : public kernels::BlockStore {
 public:
  NumberedBlocks(
      std::unique_ptr<kernels::BlockStore> inner,
      std::vector<kernels::BlockId>& by_number)
      : inner_(std::move(inner)), by_number_(by_number) {}

  kernels::BlockId take(std::size_t bytes) override {
    const kernels::BlockId real = inner_->take(bytes);
    if (real == kernels::BlockId::None) {
      return real;
    }
    by_number_.push_back(real);
    return static_cast<kernels::BlockId>(by_number_.size());
  }
  void give(kernels::BlockId block, std::size_t bytes) override {
    inner_->give(real_of(block), bytes);
  }
  void copy(kernels::BlockId to, kernels::BlockId from, std::size_t bytes)
      override {
    inner_->copy(real_of(to), real_of(from), bytes);
  }
  std::size_t idle_bytes() const override {
    return inner_->idle_bytes();
  }
  bool has_idle(std::size_t bytes) const override {
    return inner_->has_idle(bytes);
  }
  void discard_idle() override {
    inner_->discard_idle();
  }

 private:
  kernels::BlockId real_of(kernels::BlockId block) const {
    return by_number_.at(static_cast<std::size_t>(block) - 1);
  }

  std::unique_ptr<kernels::BlockStore> inner_;
  std::vector<kernels::BlockId>& by_number_; // of the device; never reused
};

/**
 * The CPU device behind a wall: every array that it hands out is a handle whose
 * memory ends the process when it is read, and blocks are numbers. What runs on
 * it reads no memory of a device; an array that it did not hand out it refuses.
 */
class PoisonedDevice final : public kernels::Device {
 public:
  const char* name() const override {
    return "poisoned";
  }
  std::string arithmetic() const override {
    return inner_.arithmetic();
  }
  std::optional<std::uint64_t> own_bytes_left() const override {
    return bytes_left;
  }
  std::optional<std::uint64_t> bytes_left; // none: the host's

  kernels::Gradients& gradients() override {
    return gradients_;
  }
  kernels::Matrix dense(const mx::array& weight) override {
    const auto own = table_->find(weight.data<void>());
    return inner_.dense(own == table_->end() ? weight : own->second);
  }
  kernels::Matrix quantized(
      const mx::array& weight,
      const mx::array& scales,
      const mx::array& biases,
      int bits,
      int group_size) override {
    return inner_.quantized(weight, scales, biases, bits, group_size);
  }
  mx::array upload(const mx::array& host) override {
    return hide(inner_.upload(host));
  }
  kernels::HostRows to_host(const mx::array& x) override {
    return inner_.to_host(real(x));
  }
  kernels::KvFormat kv_format(kernels::KvFormat format) override {
    return inner_.kv_format(std::move(format));
  }
  std::unique_ptr<kernels::BlockStore> make_block_store(
      std::size_t region_bytes) override {
    return std::make_unique<NumberedBlocks>(
        inner_.make_block_store(region_bytes), blocks_);
  }
  void finish(std::span<const mx::array> results) override {
    std::vector<mx::array> all;
    for (const mx::array& x : results) {
      all.push_back(real(x));
    }
    inner_.finish(all);
  }

  mx::array reshape(const mx::array& x, const mx::Shape& shape) override {
    return hide(inner_.reshape(real(x), shape));
  }
  mx::array row_range(const mx::array& x, int begin, int n) override {
    return hide(inner_.row_range(real(x), begin, n));
  }
  mx::array take_rows(const mx::array& x, std::span<const int> rows) override {
    return hide(inner_.take_rows(real(x), rows));
  }
  mx::array columns(const mx::array& x, int begin, int width) override {
    return hide(inner_.columns(real(x), begin, width));
  }

  mx::array concatenate(std::span<const mx::array> parts) override {
    std::vector<mx::array> all;
    for (const mx::array& part : parts) {
      all.push_back(real(part));
    }
    return hide(inner_.concatenate(all));
  }

  std::vector<mx::array> multiply(
      const mx::array& x,
      const kernels::Product& product) override;
  mx::array embed(
      std::span<const std::int32_t> ids,
      const kernels::Matrix& weight,
      float factor) override {
    return hide(inner_.embed(ids, weight, factor));
  }
  mx::array normalize(const mx::array& x, const kernels::Norm& norm) override {
    return hide(inner_.normalize(real(x), real(norm)));
  }
  mx::array add(const mx::array& a, const mx::array& b) override {
    return hide(inner_.add(real(a), real(b)));
  }
  mx::array scale(const mx::array& x, float factor) override {
    return hide(inner_.scale(real(x), factor));
  }
  mx::array glu(
      const mx::array& gate,
      const mx::array& up,
      kernels::Activation activation) override {
    return hide(inner_.glu(real(gate), real(up), activation));
  }
  mx::array softcap(const mx::array& x, float cap) override {
    return hide(inner_.softcap(real(x), cap));
  }
  mx::array sum_squares(const mx::array& x, int width, const mx::array* less)
      override {
    if (less == nullptr) {
      return hide(inner_.sum_squares(real(x), width));
    }
    const mx::array subtracted = real(*less);
    return hide(inner_.sum_squares(real(x), width, &subtracted));
  }
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

  std::vector<double> log_sum_exp(const mx::array& logits) override {
    return inner_.log_sum_exp(real(logits));
  }
  std::vector<std::int32_t> argmax(const mx::array& logits) override {
    return inner_.argmax(real(logits));
  }
  std::vector<float> pick(
      const mx::array& logits,
      std::span<const std::int32_t> ids) override {
    return inner_.pick(real(logits), ids);
  }
  std::vector<double> kl_divergence(
      const mx::array& reference,
      const mx::array& logits) override {
    return inner_.kl_divergence(real(reference), real(logits));
  }
  std::vector<kernels::BlockSums> block_sums(
      const mx::array& logits,
      std::span<const float> scales) override {
    return inner_.block_sums(real(logits), scales);
  }
  kernels::HostRows take_blocks(
      const mx::array& logits,
      std::span<const kernels::LogitBlockId> blocks) override {
    return inner_.take_blocks(real(logits), blocks);
  }

 private:
  /** The CPU's, behind the same wall. */
  class HiddenGradients final : public kernels::Gradients {
   public:
    explicit HiddenGradients(PoisonedDevice& owner) : owner_(owner) {}

    mx::array multiply(const mx::array& dy, const kernels::Matrix& weight)
        override {
      return hide(inner().multiply(real(dy), weight));
    }
    mx::array outer(const mx::array& dy, const mx::array& x) override {
      return hide(inner().outer(real(dy), real(x)));
    }
    mx::array normalize(
        const mx::array& dy,
        const mx::array& x,
        const kernels::Norm& norm) override {
      return hide(inner().normalize(real(dy), real(x), owner_.real(norm)));
    }
    std::pair<mx::array, mx::array> glu(
        const mx::array& dy,
        const mx::array& gate,
        const mx::array& up,
        kernels::Activation activation) override {
      const auto d = inner().glu(real(dy), real(gate), real(up), activation);
      return {hide(d.first), hide(d.second)};
    }
    mx::array softcap(const mx::array& dy, const mx::array& y, float cap)
        override {
      return hide(inner().softcap(real(dy), real(y), cap));
    }
    mx::array columns(const mx::array& dy, int begin, int width) override {
      return hide(inner().columns(real(dy), begin, width));
    }
    mx::array take_rows(const mx::array& dy, std::span<const int> rows, int n)
        override {
      return hide(inner().take_rows(real(dy), rows, n));
    }
    kernels::AttentionGradients attend(
        const mx::array& dy,
        const mx::array& q,
        const mx::array& k,
        const mx::array& v,
        const kernels::AttentionRule& rule,
        std::span<const kernels::Segment> segments,
        int window) override {
      const auto d = inner().attend(
          real(dy),
          real(q),
          real(k),
          real(v),
          owner_.real(rule),
          segments,
          window);
      return {hide(d.q), hide(d.k), hide(d.v)};
    }
    kernels::DeltaNetInput gated_delta_net(
        const mx::array& dy,
        const kernels::DeltaNetInput& input,
        const kernels::DeltaNetWeights& weights,
        const kernels::DeltaNetShape& shape,
        std::span<const kernels::Segment> segments) override {
      const auto d = inner().gated_delta_net(
          real(dy), owner_.real(input), owner_.real(weights), shape, segments);
      return {hide(d.qkv), hide(d.z), hide(d.b), hide(d.a)};
    }
    kernels::LogitLoss cross_entropy(
        const mx::array& logits,
        std::span<const std::int32_t> labels,
        std::span<const float> weights) override {
      return hide(inner().cross_entropy(real(logits), labels, weights));
    }
    kernels::LogitLoss kl_divergence(
        const mx::array& reference,
        const mx::array& logits,
        std::span<const float> weights) override {
      return hide(
          inner().kl_divergence(real(reference), real(logits), weights));
    }

   private:
    kernels::Gradients& inner() {
      return owner_.inner_.gradients();
    }
    mx::array hide(const mx::array& x) {
      return owner_.hide(x);
    }
    kernels::LogitLoss hide(kernels::LogitLoss loss) {
      loss.gradient = hide(loss.gradient);
      return loss;
    }
    mx::array real(const mx::array& handle) const {
      return owner_.real(handle);
    }

    PoisonedDevice& owner_;
  };

  /** Segments with the blocks of the CPU. */
  struct RealSegments {
    std::vector<std::vector<kernels::BlockId>> blocks;
    std::vector<kernels::Segment> segments;
  };

  /** A handle of x: its shape, and memory that nobody may read. */
  mx::array hide(const mx::array& x) {
    const auto memory = std::make_shared<UnreadableMemory>(x.nbytes(), table_);
    table_->emplace(memory->data(), x);
    return io::view_array(memory->data(), x.shape(), x.dtype(), memory);
  }
  /** What a handle stands for. */
  mx::array real(const mx::array& handle) const {
    const auto found = table_->find(handle.data<void>());
    if (found == table_->end() || found->second.shape() != handle.shape()) {
      fail(
          ErrorKind::Internal,
          "[PoisonedDevice] found an array that this device did not hand out");
    }
    return found->second;
  }
  std::optional<mx::array> real(const std::optional<mx::array>& handle) const {
    return handle ? std::optional(real(*handle)) : std::nullopt;
  }
  kernels::Norm real(const kernels::Norm& norm) const {
    kernels::Norm result = norm;
    result.weight = real(norm.weight);
    result.bias = real(norm.bias);
    return result;
  }
  kernels::AttentionRule real(const kernels::AttentionRule& rule) const {
    kernels::AttentionRule result = rule;
    result.q_norm = real(rule.q_norm);
    result.k_norm = real(rule.k_norm);
    result.v_norm = real(rule.v_norm);
    return result;
  }
  kernels::DeltaNetInput real(const kernels::DeltaNetInput& input) const {
    return {real(input.qkv), real(input.z), real(input.b), real(input.a)};
  }
  kernels::DeltaNetWeights real(const kernels::DeltaNetWeights& weights) const {
    kernels::DeltaNetWeights result = weights;
    result.conv = real(weights.conv);
    result.a_log = real(weights.a_log);
    result.dt_bias = real(weights.dt_bias);
    result.norm = real(weights.norm);
    return result;
  }
  RealSegments real(std::span<const kernels::Segment> segments) const;

  kernels::Device& inner_ = kernels::cpu_device();
  std::shared_ptr<HandleTable> table_ = std::make_shared<HandleTable>();
  std::vector<kernels::BlockId> blocks_; // by number - 1
  HiddenGradients gradients_{*this};
};

inline std::vector<mx::array> PoisonedDevice::multiply(
    const mx::array& x,
    const kernels::Product& product) {
  kernels::Product with_arrays = product;
  std::vector<std::optional<mx::array>> biases;
  std::vector<std::vector<kernels::LowRankUpdate>> updates;
  for (const kernels::Projection& projection : product.projections) {
    biases.push_back(
        projection.bias != nullptr ? std::optional(real(*projection.bias))
                                   : std::nullopt);
    updates.emplace_back();
    for (kernels::LowRankUpdate update : projection.updates) {
      update.a = real(update.a);
      update.b = real(update.b);
      updates.back().push_back(update);
    }
  }
  for (std::size_t i = 0; i < biases.size(); ++i) {
    with_arrays.projections[i].bias = biases[i] ? &*biases[i] : nullptr;
    with_arrays.projections[i].updates = updates[i];
  }
  std::optional<kernels::Norm> norm;
  if (product.norm != nullptr) {
    norm = real(*product.norm);
    with_arrays.norm = &*norm;
  }
  std::optional<mx::array> residual;
  if (product.residual != nullptr) {
    residual = real(*product.residual);
    with_arrays.residual = &*residual;
  }
  std::vector<mx::array> results = inner_.multiply(real(x), with_arrays);
  for (mx::array& result : results) {
    result = hide(result);
  }
  return results;
}

inline PoisonedDevice::RealSegments PoisonedDevice::real(
    std::span<const kernels::Segment> segments) const {
  RealSegments result;
  for (const kernels::Segment& segment : segments) {
    auto& blocks = result.blocks.emplace_back();
    for (const kernels::BlockId block : segment.blocks) {
      blocks.push_back(
          block == kernels::BlockId::None
              ? block
              : blocks_.at(static_cast<std::size_t>(block) - 1));
    }
  }
  for (std::size_t i = 0; i < segments.size(); ++i) {
    result.segments.push_back(segments[i]);
    result.segments.back().blocks = result.blocks[i];
  }
  return result;
}

inline mx::array PoisonedDevice::attend(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const kernels::AttentionRule& rule,
    std::span<const kernels::Segment> segments,
    const kernels::KvFormat& format) {
  const RealSegments all = real(segments);
  return hide(inner_.attend(
      real(q), real(k), real(v), real(rule), all.segments, format));
}

inline mx::array PoisonedDevice::gated_delta_net(
    const kernels::DeltaNetInput& input,
    const kernels::DeltaNetWeights& weights,
    const kernels::DeltaNetShape& shape,
    std::span<const kernels::Segment> segments) {
  const RealSegments all = real(segments);
  return hide(
      inner_.gated_delta_net(real(input), real(weights), shape, all.segments));
}

} // namespace optiq::testing
