#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "optiq/generate/logit_row.h"

namespace optiq::generate {

/**
 * Changes of the logits before a token is chosen, greedy or drawn, that depend
 * on the tokens so far. In the order in which they apply, which is that of
 * transformers (GenerationMixin._get_logits_processor); presence and frequency,
 * which it does not have, follow its repetition penalty, as in vLLM and mlx-lm.
 * The bias comes first in all three.
 */
struct LogitsOptions {
  /** z + bias, by token. */
  std::map<std::int32_t, float> logit_bias;
  /** z / penalty for z >= 0, z * penalty for z < 0, of every token of prompt
   * and answer (Keskar et al., arXiv 1909.05858). Above 0; 1 = off. */
  float repetition_penalty = 1.f;
  /** z - presence, of every token of the answer so far. -2 to 2; 0 = off. */
  float presence_penalty = 0.f;
  /** z - n * frequency, of a token that the answer has n times. -2 to 2. */
  float frequency_penalty = 0.f;
  /** No n tokens in a row occur twice in prompt and answer. 0 = off. */
  int no_repeat_ngram_size = 0;
  /** Sequences that never become complete; that of one token that ends an
   * answer does not count. */
  std::vector<std::vector<std::int32_t>> bad_words;
  /** No end before prompt and answer, or the answer, have so many tokens. */
  int min_length = 0;
  int min_new_tokens = 0;
  /** The only token after a prompt of one token. */
  std::optional<std::int32_t> forced_bos;
  /** The only tokens that may be the last one of max_tokens. */
  std::vector<std::int32_t> forced_eos;
  std::vector<std::int32_t> suppressed;
  /** Not the first token of the answer. */
  std::vector<std::int32_t> suppressed_first;

  bool operator==(const LogitsOptions&) const = default;
};

/** Throws InvalidInput naming the field and its range. */
void validate(const LogitsOptions& options);

/** The changes for one sequence, which remembers its tokens. */
class LogitsProcessors {
 public:
  /** `options` and `stop_ids`, the tokens that end an answer, must outlive
   * this. */
  LogitsProcessors(
      const LogitsOptions& options,
      std::span<const std::int32_t> stop_ids,
      std::span<const std::int32_t> prompt,
      int max_tokens);

  /** Whether there is any change to make. */
  bool is_active() const {
    return is_active_;
  }
  /** Changes the next row. */
  void apply(LogitRow& row) const;
  /** Adds the token that was chosen. */
  void push(std::int32_t token);

 private:
  void penalize(LogitRow& row) const;
  void ban_repeated_ngrams(LogitRow& row) const;
  void ban_bad_words(LogitRow& row) const;
  void ban_ends(LogitRow& row) const;
  void force_ends(LogitRow& row) const;
  std::size_t n_answer() const {
    return tokens_.size() - n_prompt_;
  }

  const LogitsOptions* options_;
  std::span<const std::int32_t> stop_ids_;
  std::size_t n_prompt_;
  std::size_t max_tokens_;
  bool is_active_;
  std::vector<std::int32_t> tokens_; // of prompt and answer
  /** How often the answer has a token of prompt or answer. */
  std::unordered_map<std::int32_t, int> counts_;
};

} // namespace optiq::generate
