#pragma once

#include <memory>
#include <vector>

#include "optiq/artifacts/kv_config.h"
#include "optiq/models/model.h"

namespace optiq::models {

/**
 * The same model, whose cache_layout has the K/V caches of the layers in `kv`
 * quantized as they say (0 bits keep a side dense; of layer i turbo's seed is
 * `seed` + i). Everything that runs a model then runs it with these caches.
 * Throws InvalidInput for a layer that the model lacks, that is named twice or
 * that has no K/V cache of its own, and what kernels::make_kv_format throws for
 * a format.
 */
std::unique_ptr<Model> with_kv(
    std::shared_ptr<const Model> model,
    const std::vector<artifacts::KvLayer>& kv);

/** What with_kv makes of one layer's dense cache. Throws what
 * kernels::make_kv_format throws. */
kernels::KvFormat quantized_cache(
    kernels::KvFormat dense,
    const artifacts::KvLayer& kv,
    kernels::Compute compute);

/** Layers that have a K/V cache of their own. */
std::vector<int> kv_layers(const Model& model);

} // namespace optiq::models
