#include "optiq/models/kv_model.h"

#include <set>
#include <utility>
#include <variant>

#include "optiq/base/error.h"

namespace optiq::models {
namespace {

/** The cache of a layer, which must be there and be quantized once. */
kernels::KvFormat& cache_of(
    std::vector<cache::LayerFormat>& layout,
    int layer,
    std::set<int>& seen) {
  const auto n = static_cast<int>(layout.size());
  if (layer < 0 || layer >= n) {
    fail(
        ErrorKind::InvalidInput,
        "[with_kv] layer_idx: found {}, expected 0..{} for this model. Take "
        "a KV config that was made for it.",
        layer,
        n - 1);
  }
  auto* format = std::get_if<kernels::KvFormat>(&layout[layer]);
  if (format == nullptr) {
    fail(
        ErrorKind::InvalidInput,
        "[with_kv] layer_idx: found {}, a layer without a K/V cache, "
        "expected an attention layer. Take a KV config that was made for this "
        "model.",
        layer);
  }
  if (!seen.insert(layer).second) {
    fail(
        ErrorKind::InvalidInput,
        "[with_kv] layer_idx: found {} twice, expected each layer once. "
        "Remove one entry.",
        layer);
  }
  return *format;
}

std::vector<cache::LayerFormat> quantize_caches(
    std::vector<cache::LayerFormat> layout,
    const std::vector<artifacts::KvLayer>& kv,
    kernels::Compute compute) {
  std::set<int> seen;
  for (const artifacts::KvLayer& entry : kv) {
    kernels::KvFormat& format = cache_of(layout, entry.layer_idx, seen);
    format.method = entry.method == artifacts::KvMethod::Affine
        ? kernels::KvMethod::Affine
        : kernels::KvMethod::Turbo;
    format.key_bits = static_cast<float>(entry.key_bits);
    format.value_bits = static_cast<float>(entry.value_bits);
    format.group_size = entry.group_size;
    format.rotation = entry.rotation == artifacts::KvRotation::Hadamard
        ? kernels::KvRotation::Hadamard
        : kernels::KvRotation::Orthogonal;
    format.seed = entry.seed + static_cast<std::uint64_t>(entry.layer_idx);
    format.compute = compute;
    format = kernels::make_kv_format(format);
  }
  return layout;
}

class KvModel final : public Model {
 public:
  KvModel(
      std::shared_ptr<const Model> model,
      std::vector<artifacts::KvLayer> kv)
      : model_(std::move(model)),
        kv_(std::move(kv)),
        exact_(quantize_caches(
            model_->cache_layout(kv_dtype(kernels::Compute::Exact)),
            kv_,
            kernels::Compute::Exact)),
        fast_(quantize_caches(
            model_->cache_layout(kv_dtype(kernels::Compute::Fast)),
            kv_,
            kernels::Compute::Fast)) {}

  const ModelInfo& info() const override {
    return model_->info();
  }
  std::vector<cache::LayerFormat> cache_layout(
      mx::Dtype kv_dtype) const override {
    return kv_dtype == mx::float32 ? exact_ : fast_;
  }
  mx::array embed(std::span<const std::int32_t> tokens) const override {
    return model_->embed(tokens);
  }
  std::vector<mx::array> layer_inputs(
      std::span<const std::int32_t> tokens,
      kernels::Compute compute) const override {
    return model_->layer_inputs(tokens, compute);
  }
  int rerun_from(int layer) const override {
    return model_->rerun_from(layer);
  }
  mx::array run_layer(
      int layer,
      const mx::array& x,
      const nn::ForwardContext& context) const override {
    return model_->run_layer(layer, x, context);
  }
  mx::array logits(const mx::array& x, kernels::Compute compute)
      const override {
    return model_->logits(x, compute);
  }
  std::vector<Module> modules() const override {
    return model_->modules();
  }
  std::unique_ptr<Model> with_matrix(
      const std::string& module,
      const kernels::Matrix& matrix) const override {
    auto changed = std::make_unique<KvModel>(*this);
    changed->model_ = model_->with_matrix(module, matrix);
    return changed;
  }

 private:
  std::shared_ptr<const Model> model_;
  std::vector<artifacts::KvLayer> kv_;
  std::vector<cache::LayerFormat> exact_;
  std::vector<cache::LayerFormat> fast_;
};

} // namespace

std::unique_ptr<Model> with_kv(
    std::shared_ptr<const Model> model,
    std::vector<artifacts::KvLayer> kv) {
  return std::make_unique<KvModel>(std::move(model), std::move(kv));
}

std::vector<int> kv_layers(const Model& model) {
  std::vector<int> layers;
  const auto layout = model.cache_layout(kv_dtype(kernels::Compute::Fast));
  for (std::size_t i = 0; i < layout.size(); ++i) {
    if (std::holds_alternative<kernels::KvFormat>(layout[i])) {
      layers.push_back(static_cast<int>(i));
    }
  }
  return layers;
}

} // namespace optiq::models
