#include "optiq/models/kv_layout.h"

#include <set>
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
        "[kv_layout] layer_idx: found {}, expected 0..{} for this model. Take "
        "a KV config that was made for it.",
        layer,
        n - 1);
  }
  auto* format = std::get_if<kernels::KvFormat>(&layout[layer]);
  if (format == nullptr) {
    fail(
        ErrorKind::InvalidInput,
        "[kv_layout] layer_idx: found {}, a layer without a K/V cache, "
        "expected an attention layer. Take a KV config that was made for this "
        "model.",
        layer);
  }
  if (!seen.insert(layer).second) {
    fail(
        ErrorKind::InvalidInput,
        "[kv_layout] layer_idx: found {} twice, expected each layer once. "
        "Remove one entry.",
        layer);
  }
  return *format;
}

} // namespace

std::vector<cache::LayerFormat> kv_layout(
    const Model& model,
    kernels::Compute compute,
    std::span<const artifacts::KvLayer> kv) {
  std::vector<cache::LayerFormat> layout =
      model.cache_layout(kv_dtype(compute));
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

} // namespace optiq::models
