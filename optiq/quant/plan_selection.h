#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/base/progress.h"
#include "optiq/models/setup.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/rounder.h"

namespace optiq::quant {

/** Makes one changed model, or the same with other caches, which is let go once
 * it is measured. */
using SetupMaker = std::function<models::Setup()>;

struct Selection {
  std::size_t best = 0;
  std::vector<double> kl; // mean over tokens, per model
};

/**
 * The model with the least KL(reference || model) on the calibration text, as
 * the geometric mean over chunks; ties go to the earlier one. Throws Corrupt
 * when a KL is not a number. Reports stage "selection". One changed model at a
 * time is in memory, and the reference's final hidden states.
 */
Selection select_model(
    const models::Setup& reference,
    const Calibration& calibration,
    std::span<const SetupMaker> makers,
    const ProgressSink& progress);

/** Weights of the size prior (PlanOptions::prior_weight) that are tried. */
inline constexpr double kPriorWeights[] =
    {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0};

/** The plan that select_model takes, with its mean KL over tokens as
 * measured_kl. Plans of equal widths are measured once, and of each plan only
 * the matrices are made whose widths are not those of the plan before. */
artifacts::Plan select_plan(
    const models::Setup& reference,
    const MatrixMaker& make_matrix,
    const Calibration& calibration,
    std::vector<artifacts::Plan> plans,
    const ProgressSink& progress);

} // namespace optiq::quant
