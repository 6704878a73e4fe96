#include "optiq/models/setup.h"

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
        "[cache_layout] layer_idx: found {}, expected 0..{} for this model. Take "
        "a KV config that was made for it.",
        layer,
        n - 1);
  }
  auto* format = std::get_if<kernels::KvFormat>(&layout[layer]);
  if (format == nullptr) {
    fail(
        ErrorKind::InvalidInput,
        "[cache_layout] layer_idx: found {}, a layer without a K/V cache, "
        "expected an attention layer. Take a KV config that was made for this "
        "model.",
        layer);
  }
  if (!seen.insert(layer).second) {
    fail(
        ErrorKind::InvalidInput,
        "[cache_layout] layer_idx: found {} twice, expected each layer once. "
        "Remove one entry.",
        layer);
  }
  return *format;
}

} // namespace

std::vector<cache::LayerFormat> cache_layout(
    const Model& model,
    kernels::Compute compute,
    const std::vector<artifacts::KvLayer>& kv) {
  auto layout = model.dense_layout(
      compute == kernels::Compute::Exact ? mx::float32 : mx::bfloat16);
  std::set<int> seen;
  for (const artifacts::KvLayer& entry : kv) {
    kernels::KvFormat& format = cache_of(layout, entry.layer_idx, seen);
    format = quantized_cache(format, entry, compute, model.device());
  }
  return layout;
}

kernels::KvFormat quantized_cache(
    kernels::KvFormat dense,
    const artifacts::KvLayer& kv,
    kernels::Compute compute,
    kernels::Device& device) {
  dense.codec = kv.codec;
  dense.codec.seed += static_cast<std::uint64_t>(kv.layer_idx);
  dense.compute = compute;
  return device.kv_format(std::move(dense));
}

std::vector<int> kv_layers(const Model& model) {
  std::vector<int> layers;
  const auto layout = cache_layout(model, kernels::Compute::Fast);
  for (std::size_t i = 0; i < layout.size(); ++i) {
    if (std::holds_alternative<kernels::KvFormat>(layout[i])) {
      layers.push_back(static_cast<int>(i));
    }
  }
  return layers;
}

Setup::Setup(
    std::shared_ptr<const Model> of_model,
    kernels::Compute in_compute,
    const std::vector<artifacts::KvLayer>& kv)
    : model(std::move(of_model)),
      compute(in_compute),
      layout(cache_layout(*model, compute, kv)) {}

Setup Setup::with_model(std::shared_ptr<const Model> changed) const {
  Setup other = *this;
  other.model = std::move(changed);
  return other;
}

} // namespace optiq::models
