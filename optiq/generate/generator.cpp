#include "optiq/generate/generator.h"

#include <exception>
#include <optional>
#include <utility>

#include "optiq/adapters/adapter_set.h"
#include "optiq/generate/answer_text.h"

namespace optiq::generate {
namespace {

using Prompts = std::span<const std::span<const std::int32_t>>;

/** What the requests of one call have brought. */
struct Results {
  std::vector<Completion> completions; // by prompt
  std::vector<std::size_t> ended; // prompts, those nobody was told of
  std::exception_ptr error; // the first failure
};

/** Hears of one prompt of a call. Outlives the call where that throws. */
class PromptListener final : public RequestListener {
 public:
  PromptListener(
      std::shared_ptr<Results> results,
      std::size_t prompt,
      const GenerateOptions& options,
      const TokenSink& on_token)
      : results_(std::move(results)), prompt_(prompt), on_token_(on_token) {
    if (!options.stop_strings.empty()) {
      text_.emplace(
          options.tokenizer,
          AnswerTextOptions{.stop_strings = options.stop_strings});
    }
  }

  bool on_token(const AnswerToken& token) override {
    results_->completions[prompt_].tokens.push_back(token.id);
    if (on_token_) {
      on_token_(prompt_, token.id);
    }
    return !text_ || !text_->push(token.id).stopped;
  }

  void on_end(const Ending& ending) override {
    results_->completions[prompt_].reason = ending.reason;
    results_->ended.push_back(prompt_);
    if (ending.error != nullptr && results_->error == nullptr) {
      results_->error = ending.error;
    }
  }

 private:
  std::shared_ptr<Results> results_;
  std::size_t prompt_;
  TokenSink on_token_;
  std::optional<AnswerText> text_; // where it may stop the answer
};

/** The requests of one call; those that are left end with it. */
class Requests {
 public:
  explicit Requests(Engine& engine) : engine_(engine) {}
  ~Requests() {
    cancel();
  }
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  void submit(Request request) {
    ids_.push_back(engine_.submit(std::move(request)));
  }
  void cancel() {
    for (const RequestId id : ids_) {
      engine_.cancel(id);
    }
  }

 private:
  Engine& engine_;
  std::vector<RequestId> ids_;
};

bool has_place(const Engine& engine) {
  const EngineStatus status = engine.status();
  return status.running + status.waiting <
      engine.options().max_running + engine.options().max_waiting;
}

Request make_request(
    std::span<const std::int32_t> prompt,
    const GenerateOptions& options,
    std::size_t index) {
  Request request{
      .prompt = {prompt.begin(), prompt.end()},
      .max_tokens = options.max_tokens,
      .clamp_max_tokens = options.clamp_max_tokens,
      .logits = options.logits,
      .sampler = options.sampler,
      .stop_ids = options.stop_ids,
      .top_logprobs = {},
      .prefix_key = {},
      .share_prefixes = options.share_prefixes,
      .layout = {},
      .adapter = adapters::active_adapter(),
      .listener = nullptr};
  request.sampler.seed += index;
  return request;
}

std::vector<Completion> complete(
    Engine& engine,
    Prompts prompts,
    const GenerateOptions& options,
    const DoneSink& on_done,
    const TokenSink& on_token) {
  const auto results = std::make_shared<Results>();
  results->completions.resize(
      prompts.size(), {.tokens = {}, .reason = FinishReason::Cancelled});
  Requests requests(engine);
  std::size_t next = 0; // first prompt that was not submitted
  for (std::size_t n_ended = 0; n_ended < prompts.size();) {
    if (options.cancel != nullptr && options.cancel->load()) {
      requests.cancel();
      n_ended += prompts.size() - std::exchange(next, prompts.size());
    }
    for (; next < prompts.size() && has_place(engine); ++next) {
      Request request = make_request(prompts[next], options, next);
      request.listener =
          std::make_shared<PromptListener>(results, next, options, on_token);
      requests.submit(std::move(request));
    }
    engine.step();
    if (results->error != nullptr) {
      std::rethrow_exception(results->error);
    }
    for (const std::size_t prompt : std::exchange(results->ended, {})) {
      ++n_ended;
      if (on_done) {
        on_done(prompt, results->completions[prompt]);
      }
    }
  }
  return std::move(results->completions);
}

} // namespace

Completion generate(
    Engine& engine,
    std::span<const std::int32_t> prompt,
    const GenerateOptions& options,
    const TokenSink& on_token) {
  return complete(engine, {&prompt, 1}, options, {}, on_token).front();
}

std::vector<Completion> generate_batch(
    Engine& engine,
    const std::vector<std::vector<std::int32_t>>& prompts,
    const GenerateOptions& options,
    const DoneSink& on_done,
    const TokenSink& on_token) {
  std::vector<std::span<const std::int32_t>> views;
  for (const auto& prompt : prompts) {
    answer_limit(
        engine.model(),
        prompt.size(),
        options.max_tokens,
        options.clamp_max_tokens);
    views.emplace_back(prompt);
  }
  return complete(engine, views, options, on_done, on_token);
}

} // namespace optiq::generate
