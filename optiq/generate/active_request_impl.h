#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "optiq/generate/engine.h"

namespace optiq::generate {

/** A request between submit and its end. What its next token depends on is all
 * here and in the model; the sequence can be made anew from `tokens`. */
struct Engine::Active {
  Active(
      RequestId with_id,
      Request what,
      std::shared_ptr<const Layout> with_layout,
      int limit)
      : id(with_id),
        request(std::move(what)),
        layout(std::move(with_layout)),
        max_tokens(limit),
        n_prompt(request.prompt.size()),
        tokens(std::move(request.prompt)),
        processors(request.logits, request.stop_ids, tokens, limit),
        sampler(request.sampler) {}
  Active(const Active&) = delete;
  Active& operator=(const Active&) = delete;

  int length() const {
    return sequence == nullptr ? 0 : sequence->length();
  }
  /** Known tokens that its sequence does not hold: 1 while it answers. */
  int rows_left() const {
    return static_cast<int>(tokens.size()) - length();
  }
  std::size_t n_answer() const {
    return tokens.size() - n_prompt;
  }
  std::span<const std::int32_t> held() const {
    return std::span(tokens).first(static_cast<std::size_t>(length()));
  }
  /** Whether one may resume what the other keeps. */
  bool shares_with(const Active& other) const {
    return request.share_prefixes && other.request.share_prefixes &&
        layout == other.layout &&
        request.prefix_key == other.request.prefix_key;
  }

  void fail_with(std::exception_ptr error) {
    ending = Ending{.reason = FinishReason::Failed, .error = std::move(error)};
  }
  void end(FinishReason reason) {
    ending = Ending{.reason = reason, .error = nullptr};
  }
  /** Calls the listener, who may throw to end the request. */
  template <typename Call>
  void notify(const Call& call) {
    try {
      call(*request.listener);
    } catch (...) {
      fail_with(std::current_exception());
    }
  }

  RequestId id;
  Request request; // but for its prompt
  std::shared_ptr<const Layout> layout; // one object for all that are equal
  int max_tokens;
  std::size_t n_prompt;
  std::vector<std::int32_t> tokens; // of prompt and answer
  LogitsProcessors processors;
  Sampler sampler;
  std::unique_ptr<cache::Sequence> sequence; // none while it waits
  /** Lengths at which its prefix is kept, ascending, those to come. */
  std::vector<int> borders;
  bool is_started = false; // its listener knows
  bool is_cancelled = false;
  std::optional<Ending> ending;
};

/** Rows of one request in a forward. */
struct Engine::Work {
  Active* active = nullptr;
  int rows = 0;
};

} // namespace optiq::generate
