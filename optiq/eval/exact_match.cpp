#include "optiq/eval/exact_match.h"

#include <algorithm>
#include <cassert>

#include "optiq/base/error.h"
#include "optiq/eval/numbers.h"
#include "optiq/eval/row_forward_impl.h"
#include "optiq/generate/generator.h"
#include "optiq/kernels/devices.h"

namespace optiq::eval {
namespace {

/** K/V and state of a batch of the longest prompts with their answers. */
std::size_t batch_bytes(
    const models::Setup& setup,
    const std::vector<TokenRow>& prompts,
    const ExactMatchOptions& options) {
  std::size_t longest = 0;
  for (const TokenRow& prompt : prompts) {
    longest = std::max(longest, prompt.size());
  }
  const std::size_t at_once =
      std::min(prompts.size(), static_cast<std::size_t>(options.batch));
  std::size_t n_tokens = longest + static_cast<std::size_t>(options.max_tokens);
  if (options.clamp_max_tokens) {
    n_tokens = std::min(
        n_tokens, static_cast<std::size_t>(setup.model->info().max_positions));
  }
  return at_once * cache::sequence_bytes(setup.layout, n_tokens);
}

} // namespace

Answers answer_questions(
    const models::Setup& setup,
    const text::Tokenizer& tokenizer,
    const std::vector<TokenRow>& prompts,
    const std::vector<std::string>& wanted,
    const ExactMatchOptions& options) {
  assert(prompts.size() == wanted.size());
  if (options.max_tokens < 1 || options.batch < 1) {
    fail(
        ErrorKind::InvalidInput,
        "[answer_questions] found max_tokens {} and batch {}, expected at "
        "least 1 for both",
        options.max_tokens,
        options.batch);
  }
  check_rows(prompts, *setup.model);
  const std::size_t bytes = batch_bytes(setup, prompts, options);
  kernels::require_bytes(
      setup.model->device(),
      bytes,
      "the K/V cache and state of the questions at work");
  generate::Engine engine(
      setup, {.max_cache_bytes = bytes, .max_running = options.batch});
  Answers answers{.right = std::vector<bool>(prompts.size())};
  std::uint64_t done = 0;
  generate::generate_batch(
      engine,
      prompts,
      {.max_tokens = options.max_tokens,
       .clamp_max_tokens = options.clamp_max_tokens,
       .stop_ids = options.stop_ids},
      [&](std::size_t prompt, const generate::Completion& completion) {
        const auto number =
            last_number(tokenizer.decode(completion.tokens, true));
        answers.right[prompt] = number == wanted[prompt];
        answers.truncated +=
            completion.reason == generate::FinishReason::Length ? 1 : 0;
        ++done;
        if (options.on_progress) {
          options.on_progress({"exact-match", done, prompts.size(), ""});
        }
      });
  return answers;
}

Estimate accuracy_of(const Answers& answers) {
  const auto n_right = static_cast<std::size_t>(
      std::count(answers.right.begin(), answers.right.end(), true));
  return proportion(n_right, answers.right.size());
}

artifacts::ExactMatchScores measure_exact_match(
    const models::Setup& setup,
    const text::Tokenizer& tokenizer,
    const std::vector<TokenRow>& prompts,
    const std::vector<std::string>& wanted,
    const ExactMatchOptions& options) {
  const Answers answers =
      answer_questions(setup, tokenizer, prompts, wanted, options);
  const Estimate accuracy = accuracy_of(answers);
  return {
      .accuracy = accuracy.value,
      .accuracy_stderr = accuracy.standard_error,
      .count = prompts.size(),
      .truncated = answers.truncated};
}

} // namespace optiq::eval
