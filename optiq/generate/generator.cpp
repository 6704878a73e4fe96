#include "optiq/generate/generator.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/generate/shared_beginnings.h"
#include "optiq/generate/stop_strings.h"

namespace optiq::generate {
namespace {

/** A prompt that is being completed. */
struct Running {
  std::size_t prompt = 0; // index into the caller's list
  int max_tokens = 0;
  LogitsProcessors processors;
  Sampler sampler;
  std::optional<StopStrings> stop_strings;
  std::unique_ptr<cache::Sequence> sequence; // null until its first forward
  std::size_t prefilled = 0; // prompt tokens that the sequence holds
  /** Lengths at which its prefix is kept, ascending, those to come. */
  std::vector<std::size_t> borders;
  Completion completion;
  bool done = false;
};

/** The loop behind generate and generate_batch. */
class BatchRun {
 public:
  BatchRun(
      Engine& engine,
      Prompts prompts,
      const GenerateOptions& options,
      int batch,
      const DoneSink& on_done,
      const TokenSink& on_token)
      : engine_(engine),
        prompts_(prompts),
        options_(options),
        batch_(static_cast<std::size_t>(batch)),
        on_done_(on_done),
        on_token_(on_token),
        results_(prompts.size()) {
    if (options.share_prefixes) {
      shared_ = shared_beginnings(prompts);
      pauses_at_borders_ = cache::needs_border(engine.prefixes().layers());
    }
  }

  std::vector<Completion> run() {
    while (next_ < prompts_.size() || !running_.empty()) {
      if (options_.cancel != nullptr && options_.cancel->load()) {
        cancel_all();
        break;
      }
      admit();
      step();
      retire();
    }
    return std::move(results_);
  }

 private:
  void admit() {
    while (running_.size() < batch_ && next_ < prompts_.size()) {
      running_.push_back(make_running(next_));
      ++next_;
    }
  }

  Running make_running(std::size_t index) const {
    const auto prompt = prompts_[index];
    const int max_tokens =
        answer_limit(engine_.model(), prompt.size(), options_);
    SamplerOptions sampler = options_.sampler;
    sampler.seed += index;
    Running running{
        .prompt = index,
        .max_tokens = max_tokens,
        .processors = LogitsProcessors(
            options_.logits, options_.stop_ids, prompt, max_tokens),
        .sampler = Sampler(sampler),
        .stop_strings = {},
        .sequence = nullptr,
        .borders = {},
        .completion = {}};
    if (!options_.stop_strings.empty()) {
      running.stop_strings.emplace(options_.tokenizer, options_.stop_strings);
    }
    return running;
  }

  /** Whether another one is prefilling what this one has in common with it, up
   * to where that is kept. */
  bool waits(const Running& r) const {
    return options_.share_prefixes &&
        std::any_of(running_.begin(), running_.end(), [&](const Running& o) {
             return o.sequence != nullptr && !o.borders.empty() &&
                 common_length(prompts_[o.prompt], prompts_[r.prompt]) >=
                 o.borders.front();
           });
  }

  void start(Running& r) {
    const auto prompt = prompts_[r.prompt];
    if (!options_.share_prefixes) {
      r.sequence = engine_.new_sequence();
      return;
    }
    r.sequence = engine_.resume(prompt);
    r.prefilled = static_cast<std::size_t>(r.sequence->length());
    const std::size_t shared = std::min(shared_[r.prompt], prompt.size() - 1) /
        kernels::kKvBlockTokens * kernels::kKvBlockTokens;
    if (shared > r.prefilled) {
      r.borders.push_back(shared);
    }
    const int end = cache::border_to_keep(
        engine_.prefixes().layers(),
        static_cast<int>(std::max(shared, r.prefilled)),
        static_cast<int>(prompt.size()));
    if (end > 0) {
      r.borders.push_back(static_cast<std::size_t>(end));
    }
  }

  /** The next tokens of a prompt, at most `budget`. */
  std::span<const std::int32_t> next_chunk(const Running& r, std::size_t budget)
      const {
    const auto prompt = prompts_[r.prompt];
    const std::size_t stop = pauses_at_borders_ && !r.borders.empty()
        ? r.borders.front()
        : prompt.size();
    return prompt.subspan(r.prefilled, std::min(budget, stop - r.prefilled));
  }

  void keep_prefix(Running& r) {
    bool reached = false;
    while (!r.borders.empty() && r.borders.front() <= r.prefilled) {
      r.borders.erase(r.borders.begin());
      reached = true;
    }
    if (reached) {
      engine_.keep_prefix(prompts_[r.prompt].first(r.prefilled), *r.sequence);
    }
  }

  /** One forward: a token of each that decodes, chunks of those that do not
   * yet, at most prefill_chunk prompt tokens in all. */
  void step() {
    std::vector<Engine::Work> work;
    std::vector<Running*> workers;
    auto budget = static_cast<std::size_t>(engine_.options().prefill_chunk);
    for (Running& r : running_) {
      std::span<const std::int32_t> tokens;
      if (r.prefilled == prompts_[r.prompt].size()) {
        tokens = {&r.completion.tokens.back(), 1};
      } else {
        if (r.sequence == nullptr) {
          if (budget == 0 || waits(r)) {
            continue;
          }
          start(r);
        }
        tokens = next_chunk(r, budget);
        budget -= tokens.size();
        r.prefilled += tokens.size();
      }
      if (!tokens.empty()) {
        work.push_back({r.sequence.get(), tokens});
        workers.push_back(&r);
      }
    }
    const kernels::HostRows logits =
        engine_.model().device().to_host(engine_.step(work));
    for (std::size_t i = 0; i < workers.size(); ++i) {
      keep_prefix(*workers[i]);
      if (workers[i]->prefilled == prompts_[workers[i]->prompt].size()) {
        take_token(*workers[i], logits.row(static_cast<int>(i)));
      }
    }
  }

  void take_token(Running& r, std::span<const float> logits) {
    LogitRow row(logits);
    r.processors.apply(row);
    LogitScan scan(row);
    const std::int32_t token = r.sampler.sample(scan);
    const auto& stops = options_.stop_ids;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
      r.completion.reason = FinishReason::Stop;
      r.done = true;
      return;
    }
    r.completion.tokens.push_back(token);
    r.processors.push(token);
    if (on_token_) {
      on_token_(r.prompt, token);
    }
    if (r.stop_strings && r.stop_strings->push(token)) {
      r.completion.reason = FinishReason::Stop;
      r.done = true;
      return;
    }
    r.done =
        r.completion.tokens.size() == static_cast<std::size_t>(r.max_tokens);
  }

  void retire() {
    for (Running& r : running_) {
      if (r.done) {
        finish(r);
      }
    }
    std::erase_if(running_, [](const Running& r) { return r.done; });
  }

  void cancel_all() {
    for (Running& r : running_) {
      r.completion.reason = FinishReason::Cancelled;
      finish(r);
    }
    for (std::size_t i = next_; i < prompts_.size(); ++i) {
      results_[i].reason = FinishReason::Cancelled;
    }
  }

  void finish(Running& r) {
    results_[r.prompt] = std::move(r.completion);
    if (on_done_) {
      on_done_(r.prompt, results_[r.prompt]);
    }
  }

  Engine& engine_;
  Prompts prompts_;
  const GenerateOptions& options_;
  std::size_t batch_;
  const DoneSink& on_done_;
  const TokenSink& on_token_;
  std::vector<std::size_t> shared_; // by prompt; empty without sharing
  bool pauses_at_borders_ = false;
  std::vector<Completion> results_;
  std::vector<Running> running_;
  std::size_t next_ = 0; // first prompt that has not been admitted
};

} // namespace

int answer_limit(
    const models::Model& model,
    std::size_t n_prompt,
    const GenerateOptions& options) {
  if (n_prompt == 0) {
    fail(ErrorKind::InvalidInput, "[generate] the prompt has no tokens");
  }
  if (options.max_tokens < 1) {
    fail(
        ErrorKind::InvalidInput,
        "[generate] max_tokens is {}, expected at least 1",
        options.max_tokens);
  }
  const auto positions = static_cast<std::int64_t>(model.info().max_positions);
  const std::int64_t room = positions - static_cast<std::int64_t>(n_prompt);
  if (options.clamp_to_positions && room > 0) {
    return static_cast<int>(std::min<std::int64_t>(room, options.max_tokens));
  }
  if (options.max_tokens > room) {
    fail(
        ErrorKind::InvalidInput,
        "[generate] {} prompt tokens plus {} new ones exceed the model's {} "
        "positions. Shorten the prompt or lower the number of new tokens",
        n_prompt,
        options.clamp_to_positions ? 1 : options.max_tokens,
        positions);
  }
  return options.max_tokens;
}

Completion generate(
    Engine& engine,
    std::span<const std::int32_t> prompt,
    const GenerateOptions& options,
    const TokenSink& on_token) {
  return BatchRun(engine, {&prompt, 1}, options, 1, {}, on_token).run().front();
}

std::vector<Completion> generate_batch(
    Engine& engine,
    const std::vector<std::vector<std::int32_t>>& prompts,
    const GenerateOptions& options,
    int batch,
    const DoneSink& on_done,
    const TokenSink& on_token) {
  if (batch < 1) {
    fail(
        ErrorKind::InvalidInput,
        "[generate_batch] batch is {}, expected at least 1",
        batch);
  }
  std::vector<std::span<const std::int32_t>> views;
  for (const auto& prompt : prompts) {
    answer_limit(engine.model(), prompt.size(), options);
    views.emplace_back(prompt);
  }
  return BatchRun(engine, views, options, batch, on_done, on_token).run();
}

} // namespace optiq::generate
