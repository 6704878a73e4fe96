#pragma once

#include <span>

#include "optiq/artifacts/eval_result.h"
#include "optiq/base/progress.h"
#include "optiq/eval/dataset.h"
#include "optiq/models/setup.h"

namespace optiq::eval {

struct PerplexityOptions {
  int batch_tokens = 2048; // per forward
  ProgressSink on_progress; // stage "ppl", in tokens; may be empty
};

/**
 * exp of the mean negative log-likelihood of every token but the first of each
 * row, given the row's tokens before it. Throws InvalidInput for a row of
 * fewer than two tokens, or of more than the model's positions.
 */
artifacts::PerplexityScores measure_perplexity(
    const models::Setup& setup,
    std::span<const TokenRow> rows,
    const PerplexityOptions& options);

} // namespace optiq::eval
