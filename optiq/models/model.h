#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <mlx/array.h>

#include "optiq/artifacts/module_id.h"
#include "optiq/cache/sequence.h"
#include "optiq/io/model_directory.h"
#include "optiq/kernels/device.h"
#include "optiq/nn/forward_context.h"

namespace optiq::models {

namespace mx = mlx::core;

/** Family-independent facts of a loaded model. */
struct ModelInfo {
  std::string model_type;
  int vocab_size = 0;
  int hidden_size = 0;
  int n_layers = 0;
  int max_positions = 0;
  bool tied_head = false;
  std::uint64_t parameters = 0; // stored in model*.safetensors
};

/** A weight matrix that can be quantized, by its MLX module path. */
struct Module {
  std::string name; // without ".weight"
  artifacts::ModuleId id; // of that name
  kernels::Matrix matrix;
};

using MatricesByName = std::map<std::string, kernels::Matrix>;

/**
 * A decoder-only language model: immutable weights, no state. A forward
 * (models/forward.h) is embed, then run_layer for each layer, then logits of
 * the wanted rows.
 */
class Model {
 public:
  virtual ~Model() = default;

  /** Where it lies and runs. */
  virtual kernels::Device& device() const {
    return kernels::cpu_device();
  }
  virtual const ModelInfo& info() const = 0;
  /** What each layer keeps per sequence when attention K/V is dense, of this
   * type; models::cache_layout quantizes. */
  virtual std::vector<cache::LayerFormat> dense_layout(
      mx::Dtype kv_dtype) const = 0;

  /** [T, hidden_size]. Throws InvalidInput for ids outside the vocabulary. */
  virtual mx::array embed(std::span<const std::int32_t> tokens) const = 0;
  /** What single layers get besides the hidden state, made from the tokens
   * alone (ForwardContext::layer_inputs); empty for most models. */
  virtual std::vector<mx::array> layer_inputs(
      std::span<const std::int32_t>,
      const nn::ForwardContext&) const {
    return {};
  }
  /** The first layer that has to run again, on a fresh past, when a matrix of
   * `layer` changes: an earlier one where layers share its K/V. */
  virtual int rerun_from(int layer) const {
    return layer;
  }
  /** x [T, hidden_size] -> the same shape, layer's past updated in place. */
  virtual mx::array run_layer(
      int layer,
      const mx::array& x,
      const nn::ForwardContext& context) const = 0;
  /** Rows `wanted` (ascending) of what run_layer gives for the last layer, the
   * same bits; the other rows only leave their past. */
  virtual mx::array run_last_layer(
      const mx::array& x,
      std::span<const int> wanted,
      const nn::ForwardContext& context) const;
  /** Final norm and head: x [T, hidden_size] -> [T, vocab_size]. */
  virtual mx::array logits(
      const mx::array& x,
      const nn::ForwardContext& context) const = 0;

  /** Every quantizable module, in source order (a tied head is absent). */
  virtual std::vector<Module> modules() const = 0;
  /** The same model with the matrices of some modules, by name, exchanged; the
   * other weights are shared. Throws NotFound for an unknown name, InvalidInput
   * for another shape. */
  virtual std::unique_ptr<Model> with_matrices(
      const MatricesByName& matrices) const = 0;
};

/** Loads a full-precision or quantized model directory onto a device. Throws
 * Unsupported for an unknown model_type, Corrupt or NotFound naming tensor or
 * config key. */
std::unique_ptr<Model> load_model(
    const io::ModelDirectory& directory,
    kernels::Device& device = kernels::cpu_device());

} // namespace optiq::models
