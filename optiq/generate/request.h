#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/cache/layout.h"
#include "optiq/generate/logits_processors.h"
#include "optiq/generate/sampler.h"
#include "optiq/nn/forward_context.h"

namespace optiq::generate {

/** What ended an answer. */
enum class FinishReason { Stop, Length, Cancelled, Failed };

/** A token and the natural logarithm of its probability. */
struct ScoredToken {
  std::int32_t id = 0;
  float logprob = 0.f;
};

/** One token of an answer. */
struct AnswerToken {
  std::int32_t id = 0;
  /** Under the model's distribution after penalties and biases, before
   * temperature and filters; only where the request asked for logprobs. */
  std::optional<float> logprob;
  std::vector<ScoredToken> top; // the most probable, in order
};

/** How a request ended. */
struct Ending {
  FinishReason reason = FinishReason::Length;
  std::exception_ptr error; // what failed, with Failed
};

enum class RequestId : std::uint64_t {}; // in order of arrival

/**
 * Hears of one request, on the thread that steps the engine. What it throws
 * ends its own request (Failed), nobody else's. May submit and cancel.
 */
class RequestListener {
 public:
  virtual ~RequestListener() = default;
  /** It left the queue; of its prompt so many tokens came from kept prefixes.
   */
  virtual void on_start(int /*cached_tokens*/) {}
  /** So many tokens of the prompt are done. */
  virtual void on_prefill(int /*done*/, int /*total*/) {}
  /** False ends the answer with this token (Stop). */
  virtual bool on_token(const AnswerToken& token) = 0;
  /** The last call, exactly once. */
  virtual void on_end(const Ending& ending) = 0;
};

/** What is asked of the engine: one answer to one prompt. */
struct Request {
  std::vector<std::int32_t> prompt;
  int max_tokens = 256; // of the answer
  /** Where max_tokens was nobody's choice, an answer for which there is too
   * little room is shortened; else it is an error. */
  bool clamp_max_tokens = false;
  LogitsOptions logits;
  SamplerOptions sampler;
  std::vector<std::int32_t> stop_ids; // end an answer, and are no part of it
  /** Logprobs of the tokens, and so many of the most probable beside each. */
  std::optional<int> top_logprobs;
  /** Separates those who must not share kept prefixes: the tenant. */
  std::string prefix_key;
  bool share_prefixes = true;
  /** What the layers keep of this sequence; empty: as the engine's setup. */
  std::vector<cache::LayerFormat> layout;
  /** Of this sequence alone, or none. Its key keeps prefixes apart. */
  std::shared_ptr<const nn::Adapter> adapter;
  std::shared_ptr<RequestListener> listener;
};

} // namespace optiq::generate
