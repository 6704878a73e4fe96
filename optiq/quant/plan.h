#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/quant/plan_options.h"

/** From a checkpoint and measured (or synthetic) errors to a plan. */
namespace optiq::quant {

/** Modules whose widths the method measures or ranks: those not protected. */
std::vector<std::string> free_modules(
    const Inventory& inventory,
    const PlanOptions& options);

/** Throws InvalidInput, naming the least possible value, when no plan meets the
 * target. Cheap: for use before an hour of measuring. */
void require_feasible(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    const PlanOptions& options);

/** Bytes of model*.safetensors that plans can have. */
struct SizeRange {
  std::uint64_t low = 0; // all at the narrowest candidate, largest groups
  std::uint64_t high = 0; // all at the widest, in the smallest
};
SizeRange size_range(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    const PlanOptions& options);

/** The plan; `measured` covers free_modules for method optiq and is ignored by
 * the others. Never over the target. */
artifacts::Plan make_plan(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    const PlanOptions& options,
    std::span<const artifacts::LayerSensitivity> measured);

/** A plan read from a file, checked against the checkpoint and with its sizes
 * computed anew. Throws InvalidInput naming a module that does not fit. */
artifacts::Plan adopt_plan(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    artifacts::Plan plan);

/** The width that most quantized parameters have: the file's default. */
int default_bits(const artifacts::Plan& plan);
/** The same of group sizes. */
int default_group_size(const artifacts::Plan& plan);

} // namespace optiq::quant
