#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <mlx/array.h>

#include "optiq/io/model_directory.h"

namespace optiq::models {

namespace mx = mlx::core;

/** What becomes of a checkpoint's tensor. */
enum class TensorRole {
  Weight, // of the language model
  Mtp, // multi-token-prediction head: kept aside in optiq/mtp.safetensors
  Tower, // vision or audio: dropped with a notice
};

/** A tensor under its MLX name, in its MLX shape, made on demand. */
struct CheckpointTensor {
  std::string name; // "language_model.model.layers.0.mlp.up_proj.weight"
  std::string source; // name in the directory
  TensorRole role = TensorRole::Weight;
  mx::Dtype dtype = mx::float32;
  mx::Shape shape;
  const char* unreadable = nullptr; // see io::TensorInfo
  bool is_outline = false; // see io::ModelDirectory::outline
  std::function<mx::array()> load; // renames, transposes, norm shifts applied
  /** As load, but float32 and before rounding to dtype; empty when load is
   * exact. What a forward uses; files store what load returns. */
  std::function<mx::array()> load_unrounded;
  std::function<void()> drop; // its pages will not be read again
};

/** A model directory after its family's sanitize steps (reference 1.8). */
struct Checkpoint {
  std::vector<CheckpointTensor> tensors; // source order
  std::map<std::string, std::size_t> index; // MLX name -> position

  bool has(const std::string& name) const {
    return index.contains(name);
  }
  /** Throws NotFound naming the tensor. */
  const CheckpointTensor& at(const std::string& name) const;
};

/** Throws Unsupported for an unknown model_type and for weights in another
 * library's quantization. */
Checkpoint open_checkpoint(const io::ModelDirectory& directory);

} // namespace optiq::models
