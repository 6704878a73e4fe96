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

struct GenerateOptions {
  int max_tokens = 256;
  /** An answer for which there is too little room is shortened, where
   * max_tokens was nobody's choice; else it is an error. */
  bool clamp_max_tokens = false;
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

/** Completes one prompt. Throws as Engine::submit, what a forward throws and
 * what the sink does. */
Completion generate(
    Engine& engine,
    std::span<const std::int32_t> prompt,
    const GenerateOptions& options,
    const TokenSink& on_token = {});

/**
 * Completes many prompts, as many at a time as the engine runs. Results in the
 * order of the prompts; that of prompt i equals `generate` with seed + i,
 * whatever runs beside it. Throws as generate, before it begins where a prompt
 * has too many tokens; then all end.
 */
std::vector<Completion> generate_batch(
    Engine& engine,
    const std::vector<std::vector<std::int32_t>>& prompts,
    const GenerateOptions& options,
    const DoneSink& on_done = {},
    const TokenSink& on_token = {});

} // namespace optiq::generate
