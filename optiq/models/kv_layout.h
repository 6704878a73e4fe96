#pragma once

#include <span>
#include <vector>

#include "optiq/artifacts/kv_config.h"
#include "optiq/cache/kv_cache.h"
#include "optiq/models/model.h"

namespace optiq::models {

/**
 * What each layer keeps per sequence in a compute mode, with the caches of the
 * layers in `kv` quantized as they say (0 bits keep a side dense); of layer i
 * turbo's seed is `seed` + i. Throws InvalidInput for a layer that the model
 * lacks, that is named twice or that has no K/V cache, and what
 * kernels::make_kv_format throws for a format.
 */
std::vector<cache::LayerFormat> kv_layout(
    const Model& model,
    kernels::Compute compute,
    std::span<const artifacts::KvLayer> kv);

} // namespace optiq::models
