#include <algorithm>
#include <string_view>

#include <mlx/ops.h>

#include "optiq/artifacts/module_id.h"
#include "optiq/io/array.h"
#include "optiq/models/families_impl.h"
#include "optiq/models/qwen3_5_impl.h"

namespace optiq::models {
namespace {

using artifacts::ModuleRole;

TensorRole role_of(std::string_view source) {
  if (source.starts_with("mtp.") ||
      source.find(".mtp.") != std::string_view::npos) {
    return TensorRole::Mtp;
  }
  if (source.starts_with("vision_tower") ||
      source.starts_with("model.visual") || source.starts_with("visual.")) {
    return TensorRole::Tower;
  }
  return TensorRole::Weight;
}

std::string mlx_name(const std::string& source) {
  constexpr std::string_view kHf = "model.language_model.";
  if (source.starts_with(kHf)) {
    return "language_model.model." + source.substr(kHf.size());
  }
  if (source.starts_with("language_model.")) {
    return source;
  }
  return "language_model." + source;
}

bool is_conv(std::string_view tensor) {
  return artifacts::module_of(tensor).role == ModuleRole::DeltaConvolution;
}

/** Hugging Face stores conv1d as [C, 1, K], MLX as [C, K, 1]. */
bool is_unconverted(const io::ModelDirectory& directory) {
  const auto& tensors = directory.tensors();
  return std::any_of(tensors.begin(), tensors.end(), [](const auto& t) {
    return is_conv(t.name) && t.shape.size() == 3 && t.shape[2] != 1;
  });
}

/** These hold w where the gain is 1 + w; MLX checkpoints hold the gain. */
bool is_shifted_norm(std::string_view tensor) {
  const ModuleRole role = artifacts::module_of(tensor).role;
  return role == ModuleRole::Norm || role == ModuleRole::QueryNorm ||
      role == ModuleRole::KeyNorm;
}

/** w + 1 in float32. */
mx::array plus_one(const mx::array& w) {
  return mx::add(mx::astype(w, mx::float32), mx::array(1.f, mx::float32));
}

/** Hugging Face's w becomes MLX's 1 + w, which files round to w's dtype. */
void shift_norm(CheckpointTensor& tensor) {
  const auto load = tensor.load;
  tensor.load_unrounded = [load] { return io::materialize(plus_one(load())); };
  tensor.load = [load, dtype = tensor.dtype] {
    return io::materialize(mx::astype(plus_one(load()), dtype));
  };
}

} // namespace

std::vector<CheckpointTensor> sanitize_qwen3_5(
    const io::ModelDirectory& directory) {
  const bool unconverted = is_unconverted(directory);
  const bool tied =
      parse_qwen3_5_config(
          directory.config(), (directory.path() / "config.json").string())
          .tied_head;
  std::vector<CheckpointTensor> tensors;
  for (CheckpointTensor& tensor : list_tensors(directory)) {
    tensor.role = role_of(tensor.source);
    if (tensor.role == TensorRole::Weight) {
      tensor.name = mlx_name(tensor.source);
      if (tied && is_head(tensor.name)) {
        continue; // a tied checkpoint that ships its head: the same weights
      }
      if (unconverted && is_conv(tensor.name) && tensor.shape.size() == 3) {
        tensor.shape = {tensor.shape[0], tensor.shape[2], tensor.shape[1]};
        tensor.load = [load = tensor.load, shape = tensor.shape] {
          return io::reshaped(load(), shape); // one of the axes is 1
        };
      } else if (
          unconverted && tensor.shape.size() == 1 &&
          is_shifted_norm(tensor.name)) {
        shift_norm(tensor);
      }
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

} // namespace optiq::models
