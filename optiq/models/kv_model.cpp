#include "optiq/models/kv_model.h"

#include <set>
#include <utility>
#include <variant>

#include "optiq/base/error.h"
#include "optiq/models/model_decorator.h"

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
    format = quantized_cache(format, entry, compute);
  }
  return layout;
}

class KvModel final : public ModelDecorator {
 public:
  KvModel(
      std::shared_ptr<const Model> model,
      const std::vector<artifacts::KvLayer>& kv)
      : ModelDecorator(std::move(model)),
        exact_(quantize_caches(
            model_->cache_layout(kv_dtype(kernels::Compute::Exact)),
            kv,
            kernels::Compute::Exact)),
        fast_(quantize_caches(
            model_->cache_layout(kv_dtype(kernels::Compute::Fast)),
            kv,
            kernels::Compute::Fast)) {}

  std::vector<cache::LayerFormat> cache_layout(
      mx::Dtype kv_dtype) const override {
    return kv_dtype == mx::float32 ? exact_ : fast_;
  }
  std::unique_ptr<Model> with_matrices(
      const MatricesByName& matrices) const override {
    auto changed = std::make_unique<KvModel>(*this);
    changed->model_ = model_->with_matrices(matrices);
    return changed;
  }

 private:
  std::vector<cache::LayerFormat> exact_;
  std::vector<cache::LayerFormat> fast_;
};

} // namespace

kernels::KvFormat quantized_cache(
    kernels::KvFormat dense,
    const artifacts::KvLayer& kv,
    kernels::Compute compute) {
  dense.method = kv.method == artifacts::KvMethod::Affine
      ? kernels::KvMethod::Affine
      : kernels::KvMethod::Turbo;
  dense.key_bits = static_cast<float>(kv.key_bits);
  dense.value_bits = static_cast<float>(kv.value_bits);
  dense.group_size = kv.group_size;
  dense.rotation = kv.rotation == artifacts::KvRotation::Hadamard
      ? kernels::KvRotation::Hadamard
      : kernels::KvRotation::Orthogonal;
  dense.seed = kv.seed + static_cast<std::uint64_t>(kv.layer_idx);
  dense.compute = compute;
  return kernels::make_kv_format(std::move(dense));
}

std::unique_ptr<Model> with_kv(
    std::shared_ptr<const Model> model,
    const std::vector<artifacts::KvLayer>& kv) {
  return std::make_unique<KvModel>(std::move(model), kv);
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
