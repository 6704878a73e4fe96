#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "optiq/artifacts/kv_config.h"
#include "optiq/base/progress.h"
#include "optiq/models/setup.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/kv_sensitivity.h"

/**
 * From measured K/V caches to one configuration. Costs are the bytes of blocks
 * of 64 tokens, as allocated: a token's bytes times 64. Layers with a sliding
 * window count at the same price, though a full window takes no more.
 */
namespace optiq::quant {

/** What the caches may add up to; one of the two is set. */
struct KvTarget {
  /** Mean width over the layers that have offers: stands for the bytes of the
   * cheapest method at that width. */
  std::optional<double> bits;
  /** Over all layers, those that stay dense included. */
  std::optional<std::uint64_t> bytes_per_token;
};

/** Block bytes that the layers with offers may take. Throws InvalidInput when
 * the target is outside of what the methods and widths give. */
std::uint64_t kv_budget(
    const std::vector<KvLayerOffers>& layers,
    const KvSearch& search,
    const KvTarget& target);

/** A cache for every layer that has offers. */
struct KvPlan {
  std::vector<artifacts::KvLayer> layers;
  std::uint64_t block_bytes = 0; // of these layers
  double predicted_kl = 0; // sum of the layers' (and sides') own KL
  std::optional<double> measured_kl; // of the whole model, by select_kv_plan
  std::string origin; // "uniform turbo 3", "relative KL, size prior 0.3", ...
};

/**
 * What is worth measuring as a whole: for several weights of a size prior, the
 * least sum of KL, or of relative KL, within the budget; and each uniform
 * configuration that fits. Of equal ones the first. Never over the budget;
 * throws InvalidInput below the cheapest.
 */
std::vector<KvPlan> make_kv_plans(
    const std::vector<KvLayerOffers>& layers,
    std::span<const KvMeasured> measured,
    const KvSearch& search,
    std::uint64_t budget);

/** The plan whose caches cost the whole model the least KL from `setup`
 * (select_model), with measured_kl. */
KvPlan select_kv_plan(
    const models::Setup& setup,
    const Calibration& calibration,
    std::vector<KvPlan> plans,
    const ProgressSink& progress);

} // namespace optiq::quant
