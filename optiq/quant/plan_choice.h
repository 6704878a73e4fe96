#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/base/progress.h"
#include "optiq/quant/inventory.h"
#include "optiq/quant/plan.h"
#include "optiq/quant/plan_exchange.h"
#include "optiq/quant/plan_options.h"
#include "optiq/quant/plan_selection.h"

/** From sensitivities to the plan that is written. */
namespace optiq::quant {

/** Moves of bits between matrices (exchange_widths). */
struct ExchangeCount {
  int n_tried = 0;
  int n_kept = 0;
  double kl_before = 0; // of the plan they started from, as measured_kl
};

struct ChosenPlan {
  artifacts::Plan plan;
  std::optional<ExchangeCount> exchange; // where moves were tried
};

/**
 * The least bytes within [low, high] whose KL is at most `target`, to within
 * `resolution`; nothing where that of `high` is not. `kl_of` should fall with
 * the bytes; where it does not, what is returned still has at most `target`.
 * Looks around `guess` first, and asks for few.
 */
std::optional<std::uint64_t> smallest_size(
    SizeRange range,
    std::uint64_t guess,
    std::uint64_t resolution,
    double target,
    const std::function<double(std::uint64_t)>& kl_of);

/** About how many a target of KL asks for, each with plans for all weights of
 * the prior. */
inline constexpr std::size_t kTypicalSizes = 6;

/** How method optiq chooses, for one target. */
class PlanChoice {
 public:
  /** Checkpoint and inventory outlive it. */
  PlanChoice(
      const models::Checkpoint& checkpoint,
      const Inventory& inventory,
      PlanOptions options);

  /** For several weights of the prior, which trust the numbers less and less
   * (PlanOptions::prior_weight). Under a target of KL, of the size at which the
   * sum over matrices meets it. */
  std::vector<artifacts::Plan> plans(
      std::span<const artifacts::LayerSensitivity> measured) const;

  /** The one of them that is best as a whole, and what moves of bits make of it
   * with the forwards of `exchange_chunks` chunks. Under a target of KL, the
   * smallest whose whole model meets it on the calibration text, to 0.02 bits
   * per weight; throws InvalidInput, naming the KL that can be had, where none
   * does. */
  ChosenPlan choose(
      PlanJudge& judge,
      std::span<const artifacts::LayerSensitivity> measured,
      std::uint64_t exchange_chunks,
      const ProgressSink& progress) const;

 private:
  std::vector<artifacts::Plan> plans_of(
      const PlanOptions& options,
      std::span<const artifacts::LayerSensitivity> measured) const;
  std::uint64_t resolution() const;
  std::uint64_t guess_size(
      std::span<const artifacts::LayerSensitivity> measured) const;
  MeasuredPlan find_smallest(
      PlanJudge& judge,
      std::span<const artifacts::LayerSensitivity> measured,
      const ProgressSink& progress) const;
  ChosenPlan exchange(
      PlanJudge& judge,
      MeasuredPlan start,
      std::span<const artifacts::LayerSensitivity> measured,
      std::uint64_t exchange_chunks,
      const ProgressSink& progress) const;

  const models::Checkpoint& checkpoint_;
  const Inventory& inventory_;
  PlanOptions options_;
};

} // namespace optiq::quant
