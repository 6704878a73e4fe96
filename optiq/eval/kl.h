#pragma once

#include <span>

#include "optiq/artifacts/eval_result.h"
#include "optiq/base/progress.h"
#include "optiq/eval/dataset.h"
#include "optiq/models/model.h"

namespace optiq::eval {

struct KlOptions {
  /** Arithmetic of the measured model; the reference always runs Exact. */
  kernels::Compute compute = kernels::Compute::Exact;
  int batch_tokens = 2048; // per forward
  ProgressSink on_progress; // stage "kl", in tokens; may be empty
};

/**
 * KL(reference || model) of the next-token distributions at every input
 * position of every row, natural logarithm. Throws InvalidInput when the
 * vocabularies differ or a row does not fit.
 */
artifacts::KlScores measure_kl(
    const models::Model& reference,
    const models::Model& model,
    std::span<const TokenRow> rows,
    const KlOptions& options);

/** The scores of given KL values and agreements (0 or 1), row by row. */
artifacts::KlScores summarize_kl(
    std::span<const std::vector<double>> kl,
    std::span<const std::vector<double>> agreement);

} // namespace optiq::eval
