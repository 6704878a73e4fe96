#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "optiq/base/progress.h"
#include "optiq/quant/plan_options.h"
#include "optiq/quant/plan_selection.h"

/** Moves of bits between matrices that are judged by the KL of whole models. */
namespace optiq::quant {

/** The plan, within the target, that errors lead to when those of some modules
 * are multiplied first (PlanOptions::error_factors). */
using FactoredPlanMaker = std::function<artifacts::Plan(const ErrorFactors&)>;

/** PlanJudge::measure of a part. */
using PartMeasurer =
    std::function<std::vector<double>(const artifacts::Plan&, ChunkPart)>;

struct Exchange {
  MeasuredPlan best;
  int n_tried = 0; // plans that were measured, in part at least
  int n_kept = 0;
  std::uint64_t n_chunks = 0; // that were measured, each a forward
};

/** Fewer chunks say too little about noise: then nothing is tried. */
inline constexpr std::size_t kMinExchangeChunks = 8;

/**
 * Looks for a better plan than `start`. What one matrix alone loses is not what
 * it costs beside all the others; that differs most by what a matrix is for and
 * where it lies, so a move multiplies the errors of one kind of matrix, of a
 * third of the layers or, at last, of one matrix, and takes the plan that the
 * allocation then makes: some matrices get bits that others give, at the same
 * target. It is measured on the chunks of Screen, then of Confirm, and kept
 * where the paired difference is below 0 by two standard errors, and not above
 * it on those of Held, which no move is made by. So on these the result is
 * never worse than `start`. The order is fixed and the budget a number of
 * chunks: equal arguments give equal results. Reports stage "exchange", in
 * chunks.
 */
Exchange exchange_widths(
    MeasuredPlan start,
    const FactoredPlanMaker& make_plan,
    const PartMeasurer& measure,
    std::uint64_t max_chunks,
    const ProgressSink& progress);

} // namespace optiq::quant
