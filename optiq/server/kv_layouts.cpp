#include "optiq/server/kv_layouts.h"

#include <algorithm>

#include "optiq/base/error.h"

namespace optiq::server {
namespace {

// Seeds are the client's choice: without a limit layouts would pile up.
constexpr std::size_t kMaxLayouts = 32;

std::vector<cache::LayerFormat> make_layout(
    const models::Setup& setup,
    const artifacts::KvCodec& codec) {
  std::vector<artifacts::KvLayer> layers;
  if (codec.method != artifacts::KvMethod::Dense) {
    for (const int layer : models::kv_layers(*setup.model)) {
      layers.push_back({.layer_idx = layer, .codec = codec});
    }
    if (layers.empty()) {
      fail(
          ErrorKind::InvalidInput,
          "[kv_cache] this model has no attention layer with a K/V cache");
    }
  }
  return models::cache_layout(*setup.model, setup.compute, layers);
}

} // namespace

KvLayouts::KvLayouts(models::Setup setup) : setup_(std::move(setup)) {}

std::vector<cache::LayerFormat> KvLayouts::layout(
    const artifacts::KvCodec& codec) {
  const std::lock_guard lock(mutex_);
  const auto found =
      std::find_if(made_.begin(), made_.end(), [&](const Made& made) {
        return made.first == codec;
      });
  if (found != made_.end()) {
    std::rotate(found, found + 1, made_.end());
    return made_.back().second;
  }
  auto layout = make_layout(setup_, codec);
  if (made_.size() == kMaxLayouts) {
    made_.erase(made_.begin());
  }
  made_.emplace_back(codec, layout);
  return layout;
}

} // namespace optiq::server
