#include "optiq/generate/logits_processors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "optiq/generate/require_option_impl.h"

namespace optiq::generate {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();

/** Whether `tokens` ends with `suffix`. */
bool ends_with(
    std::span<const std::int32_t> tokens,
    std::span<const std::int32_t> suffix) {
  return suffix.size() <= tokens.size() &&
      std::equal(suffix.begin(), suffix.end(), tokens.end() - suffix.size());
}

} // namespace

void validate(const LogitsOptions& options) {
  require_option(
      std::isfinite(options.repetition_penalty) &&
          options.repetition_penalty > 0.f,
      "repetition_penalty",
      options.repetition_penalty,
      "a finite number above 0");
  for (const auto& [name, value] :
       {std::pair{"presence_penalty", options.presence_penalty},
        std::pair{"frequency_penalty", options.frequency_penalty}}) {
    require_option(value >= -2.f && value <= 2.f, name, value, "-2 to 2");
  }
  for (const auto& [name, value] :
       {std::pair{"no_repeat_ngram_size", options.no_repeat_ngram_size},
        std::pair{"min_length", options.min_length},
        std::pair{"min_new_tokens", options.min_new_tokens}}) {
    require_option(value >= 0, name, value, "0 (off) or more");
  }
}

LogitsProcessors::LogitsProcessors(
    const LogitsOptions& options,
    std::span<const std::int32_t> stop_ids,
    std::span<const std::int32_t> prompt,
    int max_tokens)
    : options_(&options),
      stop_ids_(stop_ids),
      n_prompt_(prompt.size()),
      max_tokens_(static_cast<std::size_t>(max_tokens)),
      is_active_(options != LogitsOptions{}) {
  validate(options);
  if (is_active_) {
    tokens_.assign(prompt.begin(), prompt.end());
    for (const std::int32_t token : prompt) {
      counts_.emplace(token, 0);
    }
  }
}

std::span<const float> LogitsProcessors::apply(std::span<const float> logits) {
  if (!is_active_) {
    return logits;
  }
  logits_.assign(logits.begin(), logits.end());
  penalize();
  ban_repeated_ngrams();
  ban_bad_words();
  ban_ends();
  force_ends();
  ban(options_->suppressed);
  const bool first_is_forced = options_->forced_bos && n_prompt_ == 1;
  if (n_answer() == (first_is_forced ? 1 : 0)) {
    ban(options_->suppressed_first);
  }
  return logits_;
}

void LogitsProcessors::push(std::int32_t token) {
  if (is_active_) {
    tokens_.push_back(token);
    ++counts_[token];
  }
}

void LogitsProcessors::penalize() {
  const float penalty = options_->repetition_penalty;
  for (const auto& [token, count] : counts_) {
    float* const logit = logit_of(token);
    if (logit == nullptr) {
      continue;
    }
    *logit = *logit < 0.f ? *logit * penalty : *logit / penalty;
    if (count > 0) {
      *logit -= static_cast<float>(count) * options_->frequency_penalty +
          options_->presence_penalty;
    }
  }
}

void LogitsProcessors::ban_repeated_ngrams() {
  const auto n = static_cast<std::size_t>(options_->no_repeat_ngram_size);
  if (n == 0 || tokens_.size() < n) {
    return;
  }
  const std::span<const std::int32_t> all(tokens_);
  const auto beginning = all.last(n - 1);
  for (std::size_t i = 0; i + n <= all.size(); ++i) {
    if (std::equal(beginning.begin(), beginning.end(), all.begin() + i)) {
      ban(all.subspan(i + n - 1, 1));
    }
  }
}

void LogitsProcessors::ban_bad_words() {
  for (const auto& word : options_->bad_words) {
    const std::span<const std::int32_t> ids(word);
    const bool is_end = ids.size() == 1 &&
        std::find(stop_ids_.begin(), stop_ids_.end(), ids[0]) !=
            stop_ids_.end();
    if (!ids.empty() && !is_end &&
        ends_with(tokens_, ids.first(ids.size() - 1))) {
      ban(ids.last(1));
    }
  }
}

void LogitsProcessors::ban_ends() {
  const auto below = [](std::size_t n, int least) {
    return n < static_cast<std::size_t>(least);
  };
  if (below(tokens_.size(), options_->min_length) ||
      below(n_answer(), options_->min_new_tokens)) {
    ban(stop_ids_);
  }
}

void LogitsProcessors::force_ends() {
  if (options_->forced_bos && tokens_.size() == 1) {
    force({&*options_->forced_bos, 1});
  }
  if (!options_->forced_eos.empty() && n_answer() + 1 == max_tokens_) {
    force(options_->forced_eos);
  }
}

void LogitsProcessors::ban(std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens) {
    if (float* const logit = logit_of(token)) {
      *logit = kBanned;
    }
  }
}

void LogitsProcessors::force(std::span<const std::int32_t> tokens) {
  if (std::none_of(tokens.begin(), tokens.end(), [&](std::int32_t token) {
        return logit_of(token) != nullptr;
      })) {
    return;
  }
  std::fill(logits_.begin(), logits_.end(), kBanned);
  for (const std::int32_t token : tokens) {
    if (float* const logit = logit_of(token)) {
      *logit = 0.f;
    }
  }
}

float* LogitsProcessors::logit_of(std::int32_t token) {
  const auto id = static_cast<std::size_t>(token);
  return token >= 0 && id < logits_.size() ? &logits_[id] : nullptr;
}

} // namespace optiq::generate
