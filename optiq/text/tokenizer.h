#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace optiq::text {

class SpecialTokens;

/**
 * A Hugging Face `tokenizer.json` (format: huggingface/tokenizers) or a
 * SentencePiece `tokenizer.model`. Unknown components are refused when loading
 * (Unsupported, naming the component). Immutable and safe to share between
 * threads.
 */
class Tokenizer {
 public:
  /** From the text of a tokenizer.json. `where` names it in errors;
   * `special_tokens` is what the files beside it say. */
  static std::shared_ptr<const Tokenizer> parse(
      std::string_view tokenizer_json,
      const std::string& where,
      const SpecialTokens* special_tokens = nullptr);
  /**
   * From the bytes of a SentencePiece model, as sentencepiece encodes and
   * decodes; control pieces, and `add_bos_token`, `add_eos_token`, `bos_token`,
   * `eos_token`, `added_tokens_decoder`, `legacy` and `add_prefix_space` of
   * tokenizer_config.json, as transformers has them. `directory` names both in
   * errors.
   */
  static std::shared_ptr<const Tokenizer> parse_sentencepiece(
      std::string_view model,
      const std::optional<std::string>& tokenizer_config_json,
      const std::filesystem::path& directory);
  /** From <directory>/tokenizer.json, or tokenizer.model without one, and the
   * files beside it. */
  static std::shared_ptr<const Tokenizer> load(
      const std::filesystem::path& directory);
  ~Tokenizer();

  /** Token ids of UTF-8 text (invalid bytes become U+FFFD first). Added tokens
   * in the text are recognized. `add_special_tokens` applies the template
   * post-processor (BOS); chat prompts are encoded without. */
  std::vector<std::int32_t> encode(
      std::string_view text,
      bool add_special_tokens) const;
  /** Text of the ids; as `Tokenizer.decode` of huggingface/tokenizers. */
  std::string decode(
      const std::vector<std::int32_t>& ids,
      bool skip_special_tokens) const;
  /** Raw bytes that one id stands for in a byte-level or byte-fallback
   * decoder; empty for ids outside the vocabulary. */
  std::string token_bytes(std::int32_t id) const;
  bool is_special(std::int32_t id) const;

  std::optional<std::int32_t> token_to_id(std::string_view token) const;
  /** Largest id + 1. */
  std::int32_t vocab_size() const;

 private:
  friend class StreamingDetokenizer;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/**
 * Turns a stream of token ids into text, never giving out half a character.
 * The concatenation of everything returned equals `decode` of all ids.
 */
class StreamingDetokenizer {
 public:
  StreamingDetokenizer(
      std::shared_ptr<const Tokenizer> tokenizer,
      bool skip_special_tokens);
  ~StreamingDetokenizer();
  StreamingDetokenizer(StreamingDetokenizer&&) noexcept;
  StreamingDetokenizer& operator=(StreamingDetokenizer&&) noexcept;
  /** Text that became complete with this token; may be empty. */
  std::string push(std::int32_t id);
  /** What is left; incomplete bytes as U+FFFD. */
  std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_tokens_;
  struct State;
  std::unique_ptr<State> state_;
};

} // namespace optiq::text
