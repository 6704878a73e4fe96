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
      std::ranges::equal(suffix, tokens.last(suffix.size()));
}

/** Ids that the model does not have are passed over. */
void ban(LogitRow& row, std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens) {
    if (row.contains(token)) {
      row.change(token) = kBanned;
    }
  }
}

/** Bans all others, unless the model has none of them. */
void force(LogitRow& row, std::span<const std::int32_t> tokens) {
  if (std::none_of(tokens.begin(), tokens.end(), [&](std::int32_t token) {
        return row.contains(token);
      })) {
    return;
  }
  row.fill(kBanned);
  for (const std::int32_t token : tokens) {
    if (row.contains(token)) {
      row.change(token) = 0.f;
    }
  }
}

} // namespace

void validate(const LogitsOptions& options) {
  for (const auto& [token, bias] : options.logit_bias) {
    require_option(std::isfinite(bias), "logit_bias", bias, "a finite number");
  }
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

void LogitsProcessors::apply(LogitRow& row) const {
  if (!is_active_) {
    return;
  }
  for (const auto& [token, bias] : options_->logit_bias) {
    if (row.contains(token)) {
      row.change(token) += bias;
    }
  }
  penalize(row);
  ban_repeated_ngrams(row);
  ban_bad_words(row);
  ban_ends(row);
  force_ends(row);
  ban(row, options_->suppressed);
  const bool first_is_forced = options_->forced_bos && n_prompt_ == 1;
  if (n_answer() == (first_is_forced ? 1 : 0)) {
    ban(row, options_->suppressed_first);
  }
}

void LogitsProcessors::push(std::int32_t token) {
  if (is_active_) {
    tokens_.push_back(token);
    ++counts_[token];
  }
}

void LogitsProcessors::penalize(LogitRow& row) const {
  const float penalty = options_->repetition_penalty;
  const float presence = options_->presence_penalty;
  const float frequency = options_->frequency_penalty;
  const bool is_subtracting = presence != 0.f || frequency != 0.f;
  for (const auto& [token, count] : counts_) {
    const bool is_subtracted = count > 0 && is_subtracting;
    if (!row.contains(token) || (penalty == 1.f && !is_subtracted)) {
      continue;
    }
    float& logit = row.change(token);
    logit = logit < 0.f ? logit * penalty : logit / penalty;
    if (is_subtracted) {
      logit -= static_cast<float>(count) * frequency + presence;
    }
  }
}

void LogitsProcessors::ban_repeated_ngrams(LogitRow& row) const {
  const auto n = static_cast<std::size_t>(options_->no_repeat_ngram_size);
  if (n == 0 || tokens_.size() < n) {
    return;
  }
  const std::span<const std::int32_t> all(tokens_);
  const auto beginning = all.last(n - 1);
  for (std::size_t i = 0; i + n <= all.size(); ++i) {
    if (std::ranges::equal(beginning, all.subspan(i, n - 1))) {
      ban(row, all.subspan(i + n - 1, 1));
    }
  }
}

void LogitsProcessors::ban_bad_words(LogitRow& row) const {
  for (const auto& word : options_->bad_words) {
    const std::span<const std::int32_t> ids(word);
    const bool is_end = ids.size() == 1 &&
        std::find(stop_ids_.begin(), stop_ids_.end(), ids[0]) !=
            stop_ids_.end();
    if (!ids.empty() && !is_end &&
        ends_with(tokens_, ids.first(ids.size() - 1))) {
      ban(row, ids.last(1));
    }
  }
}

void LogitsProcessors::ban_ends(LogitRow& row) const {
  const auto below = [](std::size_t n, int least) {
    return n < static_cast<std::size_t>(least);
  };
  if (below(tokens_.size(), options_->min_length) ||
      below(n_answer(), options_->min_new_tokens)) {
    ban(row, stop_ids_);
  }
}

void LogitsProcessors::force_ends(LogitRow& row) const {
  if (options_->forced_bos && tokens_.size() == 1) {
    force(row, {&*options_->forced_bos, 1});
  }
  if (!options_->forced_eos.empty() && n_answer() + 1 == max_tokens_) {
    force(row, options_->forced_eos);
  }
}

} // namespace optiq::generate
