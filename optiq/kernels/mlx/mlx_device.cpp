#include "optiq/kernels/mlx/mlx_device.h"

#include <utility>

#include <mlx/device.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/mlx/block_arrays.h"
#include "optiq/kernels/mlx/gradients.h"
#include "optiq/kernels/mlx/guarded_impl.h"
#include "optiq/kernels/mlx/kv_codec.h"
#include "optiq/kernels/mlx/operations.h"
#include "optiq/kernels/mlx/portable.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels {
namespace {

using portable::guarded;

/** Operations are nodes of MLX's graph until they are evaluated. */
class MlxDevice final : public Device {
 public:
  Gradients& gradients() override {
    return portable::gradients();
  }

  const char* name() const override {
    return portable::kDeviceName;
  }
  std::string arithmetic() const override {
    return mx::default_device() == mx::Device::gpu
        ? "MLX on Metal, bfloat16 in fast"
        : "MLX on the CPU, float32";
  }
  bool has_exact_rows() const override {
    return false;
  }

  Matrix dense(const mx::array& weight) override {
    return guarded("dense", [&] { return portable::dense_matrix(weight); });
  }
  Matrix quantized(
      const mx::array& weight,
      const mx::array& scales,
      const mx::array& biases,
      int bits,
      int group_size) override {
    return guarded("quantized", [&] {
      return portable::quantized_matrix(
          weight, scales, biases, bits, group_size);
    });
  }
  mx::array upload(const mx::array& host) override {
    return host;
  }
  HostRows to_host(const mx::array& x) override {
    const auto there = std::make_shared<mx::array>(evaluated("to_host", x));
    return {
        io::floats(*there), there->ndim() == 0 ? 1 : there->shape(-1), there};
  }
  KvFormat kv_format(KvFormat format) override {
    check_kv_format(format);
    portable::activation_dtype(format.compute);
    format.layout = guarded("kv_format", [&] {
      return std::make_shared<portable::KvArrays>(format);
    });
    return format;
  }
  std::unique_ptr<BlockStore> make_block_store(std::size_t) override {
    return std::make_unique<portable::BlockArrays>(pending_);
  }
  void finish(std::span<const mx::array> results) override {
    std::vector<mx::array> all(results.begin(), results.end());
    for (const portable::Block* block : pending_) {
      all.insert(all.end(), block->arrays.begin(), block->arrays.end());
    }
    pending_.clear();
    guarded("finish", [&] { mx::eval(std::move(all)); });
  }

  mx::array reshape(const mx::array& x, const mx::Shape& shape) override {
    return guarded("reshape", [&] { return mx::reshape(x, shape); });
  }
  mx::array row_range(const mx::array& x, int begin, int n) override {
    check_range("row_range", "rows", begin, n, x.ndim() == 0 ? 0 : x.shape(0));
    mx::Shape start(x.ndim(), 0);
    mx::Shape stop = x.shape();
    start[0] = begin;
    stop[0] = begin + n;
    return guarded("row_range", [&] { return mx::slice(x, start, stop); });
  }
  mx::array take_rows(const mx::array& x, std::span<const int> rows) override {
    const int size = x.ndim() == 0 ? 0 : x.shape(0);
    for (const int row : rows) {
      check_range("take_rows", "row", row, 1, size);
    }
    const auto n = static_cast<int>(rows.size());
    return guarded("take_rows", [&] {
      return mx::take(x, mx::array(rows.data(), {n}, mx::int32), 0);
    });
  }
  mx::array columns(const mx::array& x, int begin, int width) override {
    return guarded("columns", [&] {
      const int rows = x.ndim() == 0 ? 0 : x.shape(0);
      const mx::array flat = mx::flatten(x, 1, -1);
      check_range("columns", "columns", begin, width, flat.shape(1));
      return mx::slice(flat, {0, begin}, {rows, begin + width});
    });
  }

  mx::array concatenate(std::span<const mx::array> parts) override {
    if (parts.empty()) {
      return mx::zeros({0, 0}, mx::float32);
    }
    return guarded("concatenate", [&] {
      return mx::concatenate({parts.begin(), parts.end()}, 0);
    });
  }

  std::vector<mx::array> multiply(const mx::array& x, const Product& product)
      override {
    return guarded("multiply", [&] { return portable::multiply(x, product); });
  }
  mx::array embed(
      std::span<const std::int32_t> ids,
      const Matrix& weight,
      float factor) override {
    return guarded(
        "embed", [&] { return portable::embed(ids, weight, factor); });
  }
  mx::array normalize(const mx::array& x, const Norm& norm) override {
    return guarded("normalize", [&] { return portable::normalize(x, norm); });
  }
  mx::array add(const mx::array& a, const mx::array& b) override {
    require_shape("add", "b", b, a.shape());
    return guarded("add", [&] {
      // Of two dtypes the later block's: a residual joins what it meets.
      return mx::add(mx::astype(a, b.dtype()), b);
    });
  }
  mx::array scale(const mx::array& x, float factor) override {
    return guarded("scale", [&] {
      return mx::multiply(x, portable::scalar_of(x, factor));
    });
  }
  mx::array glu(
      const mx::array& gate,
      const mx::array& up,
      Activation activation) override {
    require_shape("glu", "up", up, gate.shape());
    return guarded("glu", [&] { return portable::glu(gate, up, activation); });
  }
  mx::array softcap(const mx::array& x, float cap) override {
    if (!(cap > 0.f)) {
      fail(
          ErrorKind::InvalidInput,
          "[softcap] cap: found {}, expected a number above 0. Pass the "
          "model's.",
          cap);
    }
    return guarded("softcap", [&] { return portable::softcap(x, cap); });
  }
  mx::array sum_squares(const mx::array& x, int width, const mx::array* less)
      override {
    const mx::Shape shape = summed_shape("sum_squares", x, width);
    if (less != nullptr) {
      require_shape("sum_squares", "less", *less, x.shape());
    }
    return guarded("sum_squares", [&] {
      const mx::array all = less != nullptr ? mx::subtract(x, *less) : x;
      return mx::sum(
          mx::reshape(mx::square(all), {shape[0], shape[1], width}), -1);
    });
  }
  mx::array attend(
      const mx::array& q,
      const mx::array& k,
      const mx::array& v,
      const AttentionRule& rule,
      std::span<const Segment> segments,
      const KvFormat& format) override {
    return guarded("attend", [&] {
      return portable::attend(q, k, v, rule, segments, format, pending_);
    });
  }
  mx::array gated_delta_net(
      const DeltaNetInput& input,
      const DeltaNetWeights& weights,
      const DeltaNetShape& shape,
      std::span<const Segment> segments) override {
    return guarded("gated_delta_net", [&] {
      return portable::gated_delta_net(
          input, weights, shape, segments, pending_);
    });
  }

  std::vector<double> log_sum_exp(const mx::array& logits) override {
    return cpu::log_sum_exp(evaluated("log_sum_exp", logits));
  }
  std::vector<std::int32_t> argmax(const mx::array& logits) override {
    return cpu::argmax(evaluated("argmax", logits));
  }
  std::vector<float> pick(
      const mx::array& logits,
      std::span<const std::int32_t> ids) override {
    return cpu::pick(evaluated("pick", logits), ids);
  }
  std::vector<double> kl_divergence(
      const mx::array& reference,
      const mx::array& logits) override {
    return cpu::kl_divergence(
        evaluated("kl_divergence", reference),
        evaluated("kl_divergence", logits));
  }
  std::vector<BlockSums> block_sums(
      const mx::array& logits,
      std::span<const float> scales) override {
    return cpu::block_sums(evaluated("block_sums", logits), scales);
  }
  HostRows take_blocks(
      const mx::array& logits,
      std::span<const LogitBlockId> blocks) override {
    return cpu::take_blocks(evaluated("take_blocks", logits), blocks);
  }

 private:
  /** x as the CPU reads it; the step ends. */
  mx::array evaluated(const char* function, const mx::array& x) {
    mx::array y = guarded(
        function, [&] { return mx::contiguous(mx::astype(x, mx::float32)); });
    finish({&y, 1});
    return y;
  }

  portable::PendingBlocks pending_;
};

} // namespace

Device& mlx_device() {
  // Left to the system at exit, as MLX's own threads are.
  static auto* device = new MlxDevice;
  return *device;
}

} // namespace optiq::kernels
