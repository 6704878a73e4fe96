#pragma once

#include <memory>
#include <vector>

#include "optiq/artifacts/kv_config.h"
#include "optiq/models/model.h"

namespace optiq::models {

/**
 * What each layer of the model keeps of a sequence: K/V caches as `kv` says (0
 * bits keep a side dense; of layer i turbo's seed is `seed` + i), and dense
 * where it says nothing, float32 in Exact and bfloat16 else. Throws
 * InvalidInput for a layer that the model lacks, that is named twice or that
 * has no K/V cache of its own, and what Device::kv_format throws.
 */
std::vector<cache::LayerFormat> cache_layout(
    const Model& model,
    kernels::Compute compute,
    const std::vector<artifacts::KvLayer>& kv = {});

/** What becomes of one layer's dense cache. Throws what Device::kv_format
 * throws. */
kernels::KvFormat quantized_cache(
    kernels::KvFormat dense,
    const artifacts::KvLayer& kv,
    kernels::Compute compute,
    kernels::Device& device);

/** Layers that have a K/V cache of their own. */
std::vector<int> kv_layers(const Model& model);

/** A model and how it is run: in which arithmetic, with which caches. Whatever
 * runs a model takes this. A value; copies share the weights. */
struct Setup {
  std::shared_ptr<const Model> model;
  kernels::Compute compute = kernels::Compute::Fast;
  std::vector<cache::LayerFormat> layout; // by layer
  /** Of every sequence that has none of its own; or nothing. */
  std::shared_ptr<const nn::Adapter> adapter;

  /** Throws as cache_layout. */
  Setup(
      std::shared_ptr<const Model> of_model,
      kernels::Compute in_compute,
      const std::vector<artifacts::KvLayer>& kv = {});

  /** The same of a version of the model with other matrices. */
  Setup with_model(std::shared_ptr<const Model> changed) const;
};

} // namespace optiq::models
