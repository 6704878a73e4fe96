#pragma once

#include <memory>
#include <string>
#include <vector>

#include "optiq/artifacts/eval_result.h"
#include "optiq/base/progress.h"
#include "optiq/eval/dataset.h"
#include "optiq/eval/statistics.h"
#include "optiq/models/setup.h"
#include "optiq/text/tokenizer.h"

namespace optiq::eval {

struct ExactMatchOptions {
  int max_tokens = 64; // of an answer
  bool clamp_max_tokens = false; // as generate::GenerateOptions
  int batch = 16; // questions at a time
  std::vector<std::int32_t> stop_ids;
  ProgressSink on_progress; // stage "exact-match", in questions; may be empty
};

/** Whether each prompt's answer was right, and how many were cut. */
struct Answers {
  std::vector<bool> right;
  std::uint64_t truncated = 0;
};

/**
 * Answers each prompt greedily, without the penalties that the model's
 * generation_config.json may ask for, and compares the last number of the
 * answer with wanted (canonical form of numbers.h; one a prompt). Throws
 * InvalidInput for a prompt that, with its answer, exceeds the model's
 * positions.
 */
Answers answer_questions(
    const models::Setup& setup,
    const text::Tokenizer& tokenizer,
    const std::vector<TokenRow>& prompts,
    const std::vector<std::string>& wanted,
    const ExactMatchOptions& options);

/** The share of right answers. */
Estimate accuracy_of(const Answers& answers);

/** That of answer_questions. */
artifacts::ExactMatchScores measure_exact_match(
    const models::Setup& setup,
    const text::Tokenizer& tokenizer,
    const std::vector<TokenRow>& prompts,
    const std::vector<std::string>& wanted,
    const ExactMatchOptions& options);

} // namespace optiq::eval
