#include "optiq/quant/plan_choice.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "optiq/base/error.h"

namespace optiq::quant {
namespace {

using artifacts::LayerSensitivity;
using artifacts::Plan;

constexpr double kResolutionBpw = 0.02;
// Of what is left between two sizes, so that each question narrows it.
constexpr double kMargin = 0.1;

PlanOptions at_size(PlanOptions options, std::uint64_t bytes) {
  options.target_kl.reset();
  options.target_bytes = bytes;
  return options;
}

/** A size whose KL is known. */
struct Known {
  std::uint64_t bytes = 0;
  double kl = 0;
};

/** Between two sizes, where a line through the logarithms meets the target. */
std::uint64_t size_between(const Known& low, const Known& high, double target) {
  double share = 0.5;
  if (low.kl > target && high.kl > 0 && target > 0 && high.kl < low.kl) {
    share = std::clamp(
        std::log(low.kl / target) / std::log(low.kl / high.kl),
        kMargin,
        1 - kMargin);
  }
  const auto width = static_cast<double>(high.bytes - low.bytes);
  return low.bytes +
      std::clamp<std::uint64_t>(
             static_cast<std::uint64_t>(share * width),
             1,
             high.bytes - low.bytes - 1);
}

} // namespace

std::optional<std::uint64_t> smallest_size(
    SizeRange range,
    std::uint64_t guess,
    std::uint64_t resolution,
    double target,
    const std::function<double(std::uint64_t)>& kl_of) {
  resolution = std::max<std::uint64_t>(resolution, 1);
  const auto ask = [&](std::uint64_t bytes) {
    return Known{bytes, kl_of(bytes)};
  };
  Known at = ask(std::clamp(guess, range.low, range.high));
  const bool goes_down = at.kl <= target;
  // Twice as far each time, until the target is between two.
  Known other = at;
  for (std::uint64_t step = 8 * resolution;; step *= 2) {
    if (at.bytes == (goes_down ? range.low : range.high)) {
      return goes_down ? std::optional(at.bytes) : std::nullopt;
    }
    const std::uint64_t room =
        goes_down ? at.bytes - range.low : range.high - at.bytes;
    other = at;
    at =
        ask(goes_down ? at.bytes - std::min(room, step)
                      : at.bytes + std::min(room, step));
    if ((at.kl <= target) != goes_down) {
      break;
    }
  }
  Known low = goes_down ? at : other;
  Known high = goes_down ? other : at;
  while (high.bytes - low.bytes > resolution) {
    const Known middle = ask(size_between(low, high, target));
    (middle.kl <= target ? high : low) = middle;
  }
  return high.bytes;
}

PlanChoice::PlanChoice(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    PlanOptions options)
    : checkpoint_(checkpoint),
      inventory_(inventory),
      options_(std::move(options)) {}

std::vector<Plan> PlanChoice::plans_of(
    const PlanOptions& options,
    std::span<const LayerSensitivity> measured) const {
  std::vector<Plan> plans;
  PlanOptions weighted = options;
  for (const double weight : kPriorWeights) {
    weighted.prior_weight = weight;
    plans.push_back(make_plan(checkpoint_, inventory_, weighted, measured));
  }
  return plans;
}

std::vector<Plan> PlanChoice::plans(
    std::span<const LayerSensitivity> measured) const {
  return plans_of(
      options_.target_kl ? at_size(options_, guess_size(measured)) : options_,
      measured);
}

std::uint64_t PlanChoice::resolution() const {
  return static_cast<std::uint64_t>(
      kResolutionBpw / 8 * static_cast<double>(inventory_.parameters));
}

std::uint64_t PlanChoice::guess_size(
    std::span<const LayerSensitivity> measured) const {
  const SizeRange range = size_range(checkpoint_, inventory_, options_);
  return smallest_size(
             range,
             (range.low + range.high) / 2,
             resolution(),
             *options_.target_kl,
             [&](std::uint64_t bytes) {
               return make_plan(
                          checkpoint_,
                          inventory_,
                          at_size(options_, bytes),
                          measured)
                   .predicted_kl;
             })
      .value_or(range.high);
}

MeasuredPlan PlanChoice::find_smallest(
    PlanJudge& judge,
    std::span<const LayerSensitivity> measured,
    const ProgressSink& progress) const {
  const SizeRange range = size_range(checkpoint_, inventory_, options_);
  std::map<std::uint64_t, MeasuredPlan> known;
  const auto size = smallest_size(
      range,
      guess_size(measured),
      resolution(),
      *options_.target_kl,
      [&](std::uint64_t bytes) {
        MeasuredPlan best = select_plan(
            judge, plans_of(at_size(options_, bytes), measured), progress);
        const double kl = *best.plan.measured_kl;
        known.insert_or_assign(bytes, std::move(best));
        return kl;
      });
  if (!size) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --target-kl {}: with the widest candidates, {} bytes, it is "
        "{:.4g} nats per token on the calibration text. Raise the target, or "
        "allow more bits with --candidate-bits.",
        *options_.target_kl,
        range.high,
        *known.at(range.high).plan.measured_kl);
  }
  return std::move(known.at(*size));
}

ChosenPlan PlanChoice::choose(
    PlanJudge& judge,
    std::span<const LayerSensitivity> measured,
    std::uint64_t exchange_chunks,
    const ProgressSink& progress) const {
  MeasuredPlan best = options_.target_kl
      ? find_smallest(judge, measured, progress)
      : select_plan(judge, plans(measured), progress);
  if (exchange_chunks == 0) {
    return {std::move(best.plan), std::nullopt};
  }
  return exchange(judge, std::move(best), measured, exchange_chunks, progress);
}

ChosenPlan PlanChoice::exchange(
    PlanJudge& judge,
    MeasuredPlan start,
    std::span<const LayerSensitivity> measured,
    std::uint64_t exchange_chunks,
    const ProgressSink& progress) const {
  PlanOptions options = options_.target_kl
      ? at_size(options_, *start.plan.target_bytes)
      : options_;
  options.prior_weight = start.plan.prior_weight.value_or(0);
  const double before = *start.plan.measured_kl;
  Exchange found = exchange_widths(
      start,
      [&](const ErrorFactors& factors) {
        options.error_factors = factors;
        return make_plan(checkpoint_, inventory_, options, measured);
      },
      [&](const Plan& plan, ChunkPart part) {
        return judge.measure(plan, part);
      },
      exchange_chunks,
      progress);
  found.best.plan.measured_kl = judge.mean_kl(found.best.chunk_kl);
  // Moves go by logarithms, a target by the mean over tokens.
  if (options_.target_kl &&
      *found.best.plan.measured_kl > *options_.target_kl) {
    return {std::move(start.plan), ExchangeCount{found.n_tried, 0, before}};
  }
  return {
      std::move(found.best.plan),
      ExchangeCount{found.n_tried, found.n_kept, before}};
}

} // namespace optiq::quant
