#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "optiq/generate/engine.h"
#include "optiq/generate/logits_processors.h"
#include "optiq/generate/sampler.h"
#include "optiq/text/tokenizer.h"

namespace optiq::generate {

/** What ended a completion. */
enum class FinishReason { Stop, Length, Cancelled };

struct GenerateOptions {
  int max_tokens = 256;
  /** An answer for which the model has too few positions is shortened, where
   * max_tokens was nobody's choice; else it is an error. */
  bool clamp_to_positions = false;
  LogitsOptions logits;
  SamplerOptions sampler;
  std::vector<std::int32_t> stop_ids;
  /** End an answer too, and are part of it. They need the tokenizer. */
  std::vector<std::string> stop_strings;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  /** Prefills once what prompts of this call, or an earlier one of the engine,
   * have in common at their beginning. Changes no bit of the logits. */
  bool share_prefixes = true;
  /** Checked before every step; true ends all completions (Cancelled). */
  const std::atomic<bool>* cancel = nullptr;
};

struct Completion {
  std::vector<std::int32_t> tokens; // without the stop token
  FinishReason reason = FinishReason::Length;
};

/** Called on the engine thread with each new token of a prompt. */
using TokenSink = std::function<void(std::size_t prompt, std::int32_t token)>;
/** Called when a prompt's completion has ended. */
using DoneSink =
    std::function<void(std::size_t prompt, const Completion& completion)>;

/** The most tokens that the answer to a prompt may have. Throws InvalidInput
 * for an empty prompt or one that, with max_tokens, exceeds the model's
 * positions. */
int answer_limit(
    const models::Model& model,
    std::size_t n_prompt,
    const GenerateOptions& options);

/** Completes one prompt. Throws as answer_limit. */
Completion generate(
    Engine& engine,
    std::span<const std::int32_t> prompt,
    const GenerateOptions& options,
    const TokenSink& on_token = {});

/**
 * Completes many prompts, at most `batch` at a time: prompts are prefilled in
 * chunks in the same forwards in which others decode, and a finished one makes
 * room for the next. Results in the order of the prompts; that of prompt i
 * equals `generate` with seed + i, whatever the batch.
 */
std::vector<Completion> generate_batch(
    Engine& engine,
    const std::vector<std::vector<std::int32_t>>& prompts,
    const GenerateOptions& options,
    int batch,
    const DoneSink& on_done = {},
    const TokenSink& on_token = {});

} // namespace optiq::generate
