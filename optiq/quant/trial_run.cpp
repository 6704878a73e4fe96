#include "optiq/quant/trial_run.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "optiq/artifacts/module_id.h"
#include "optiq/base/error.h"
#include "optiq/models/forward.h"

namespace optiq::quant {

namespace mx = mlx::core;

namespace {

// Layers up to so many bytes are loaded together: a small model in one go.
constexpr std::uint64_t kMaxGroupBytes = 16u << 20;

/** Consecutive layers [first, last). */
struct LayerGroup {
  int first = 0;
  int last = 0;
  std::uint64_t bytes = 0;
};

std::vector<LayerGroup> group_layers(
    const std::map<int, std::uint64_t>& layers) {
  std::vector<LayerGroup> groups;
  for (const auto& [layer, bytes] : layers) {
    if (groups.empty() || groups.back().bytes + bytes > kMaxGroupBytes) {
      groups.push_back({.first = layer, .last = layer});
    }
    groups.back().last = layer + 1;
    groups.back().bytes += bytes;
  }
  return groups;
}

std::map<int, std::uint64_t> layer_bytes(const io::ModelDirectory& directory) {
  std::map<int, std::uint64_t> bytes;
  for (const io::TensorInfo& tensor : directory.tensors()) {
    if (const int layer = artifacts::layer_of(tensor.name); layer >= 0) {
      bytes[layer] += tensor.nbytes;
    }
  }
  return bytes;
}

void require_finite(
    const io::ModelDirectory& directory,
    const mx::array& x,
    kernels::Device& device,
    const std::string& place) {
  const kernels::HostRows rows = device.to_host(x);
  const std::span<const float> values = rows.all();
  if (!std::all_of(values.begin(), values.end(), [](float value) {
        return std::isfinite(value);
      })) {
    fail(
        ErrorKind::Corrupt,
        "[run_one_token] {}: {} of one token are not finite. Does the model "
        "hold NaN or infinite weights?",
        directory.path().string(),
        place);
  }
}

} // namespace

void run_one_token(const io::ModelDirectory& directory) {
  constexpr std::int32_t kToken = 0;
  // Embeddings, norms and head; the layers follow, in groups.
  const models::Setup outer(
      models::load_model(directory.outline([](const std::string& name) {
        return artifacts::layer_of(name) < 0;
      })),
      kernels::Compute::Fast); // as generate runs
  models::Forward forward(outer);
  forward.add_fresh(std::span(&kToken, 1));
  kernels::Device& device = outer.model->device();
  mx::array x = outer.model->embed(std::span(&kToken, 1));
  require_finite(directory, x, device, "the embeddings");
  for (const LayerGroup& group : group_layers(layer_bytes(directory))) {
    const auto part =
        models::load_model(directory.outline([&](const std::string& name) {
          const int layer = artifacts::layer_of(name);
          return group.first <= layer && layer < group.last;
        }));
    for (int layer = group.first; layer < group.last; ++layer) {
      x = forward.run_layers(*part, layer, layer + 1, x);
      require_finite(
          directory,
          x,
          part->device(),
          "the outputs of layer " + std::to_string(layer));
    }
  }
  require_finite(directory, models::logits_of(outer, x), device, "the logits");
}

std::uint64_t trial_run_bytes(
    const std::map<int, std::uint64_t>& layers,
    std::uint64_t outer) {
  std::uint64_t largest = 0;
  for (const LayerGroup& group : group_layers(layers)) {
    largest = std::max(largest, group.bytes);
  }
  return outer + largest;
}

} // namespace optiq::quant
