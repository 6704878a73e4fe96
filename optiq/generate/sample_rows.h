#pragma once

#include <exception>
#include <optional>
#include <span>

#include "optiq/generate/logits_processors.h"
#include "optiq/generate/request.h"
#include "optiq/generate/sampler.h"
#include "optiq/kernels/device.h"

namespace optiq::generate {

/** A row of logits from which one sequence takes its next token. */
struct RowToSample {
  std::span<const float> logits; // [vocab_size], on the host
  const LogitsProcessors* processors = nullptr;
  Sampler* sampler = nullptr;
  /** Wants the token's logprob, and so many of the most probable tokens. */
  std::optional<int> top_logprobs;

  AnswerToken token; // the result
  std::exception_ptr error; // what failed instead
};

/**
 * Chooses the next token of every row, the rows in parallel; `token` of a row
 * depends on nothing but the row. Does not push it to the processors. A row
 * that fails gets its `error`, the others their tokens.
 *
 * A logprob is that of the softmax of the changed logits (penalties, biases,
 * bans), before temperature and filters, as in mlx-lm; -inf for a token that
 * cannot be drawn. Beside it, the most probable by descending logit, then
 * ascending id.
 */
void sample_rows(std::span<RowToSample> rows);

/**
 * The same of rows of logits [rows, vocab_size] on a device, where they stay
 * while nothing changes them and no logprobs are asked for: the host gets sums
 * of their blocks, then the blocks that a row's sampler looks at. A device that
 * fails throws.
 */
void sample_rows(
    kernels::Device& device,
    const kernels::mx::array& logits,
    std::span<RowToSample> rows);

} // namespace optiq::generate
