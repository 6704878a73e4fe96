#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/eval_result.h"
#include "optiq/eval/exact_match.h"
#include "optiq/text/chat_template.h"

/**
 * Needle in a haystack: one number among sentences that have nothing to do
 * with it, at a given depth of a text of a given length, is asked for at the
 * end. More facts of the same form make it a recall task: the numbers of others
 * are then in the way.
 */
namespace optiq::eval {

struct NeedleOptions {
  std::vector<int> lengths{256, 512, 1024, 2048, 4096}; // tokens of a prompt
  std::vector<double> depths{0, .25, .5, .75, 1}; // 0: start, 1: the end
  int trials = 4; // per length and depth
  int facts = 1; // in the text, the one asked for included
  std::uint64_t seed = 0;
};

struct NeedlePrompt {
  std::size_t length = 0; // index into NeedleOptions::lengths
  std::size_t depth = 0; // index into NeedleOptions::depths
  TokenRow tokens; // at most the wanted length
  std::string value; // the number asked for
};

/**
 * Prompts for every length, depth and trial, in this order. With `chat` the
 * text and its question are a user's turn, else the text is raw and ends with
 * the beginning of the answer. Throws InvalidInput for lengths that do not hold
 * the facts and the question, depths outside [0, 1], no trial or no fact.
 */
std::vector<NeedlePrompt> make_needle_prompts(
    const text::Tokenizer& tokenizer,
    const text::ChatTemplate* chat,
    const NeedleOptions& options);

/** Answers greedily; right is an answer whose last number is the wanted one. */
artifacts::NeedleScores measure_needle(
    const models::Setup& setup,
    const text::Tokenizer& tokenizer,
    const std::vector<NeedlePrompt>& prompts,
    const NeedleOptions& needle,
    const ExactMatchOptions& options);

} // namespace optiq::eval
