#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/text/byte_level_impl.h"
#include "optiq/text/chain_limits_impl.h"
#include "optiq/text/json_fields_impl.h"
#include "optiq/text/pattern_regex.h"

namespace optiq::text {

/**
 * The `decoder` of a tokenizer.json: ByteLevel, ByteFallback, Metaspace,
 * WordPiece, BPEDecoder, CTC, Replace, Strip, Fuse, Sequence. A chain of steps,
 * each from tokens to tokens until one fuses them into a single one. Of that
 * the later steps get pieces, as they come; a step that has to see all of it
 * collects them until the end.
 */
class TokenDecoder {
 public:
  /** Of a field that may be null: then tokens are joined by spaces. */
  static TokenDecoder parse(const JsonField& field);
  /** Of tokens that are spelled as ByteLevel spells them. */
  static TokenDecoder byte_level();

  /** Which marks of a space do not become one. */
  enum class LeadingMark {
    Kept,
    DroppedOnce, // at the beginning of the first token
    DroppedBeforeText, // of each token up to the first that has more
  };
  /** Of SentencePiece models. */
  static TokenDecoder sentencepiece(LeadingMark leading, bool has_bytes);

  /** What a chain remembers between tokens. */
  struct Stream {
    struct StepState {
      std::string held; // what cannot be given out yet, or the last token
      std::size_t stripped = 0; // characters taken from the beginning
      bool started = false;
    };
    std::vector<StepState> steps;
  };
  Stream start() const;
  /** Appends the text that is certain with this token; whole characters. */
  void push(Stream& stream, std::string_view token, std::string& out) const;
  /** Appends the rest. */
  void finish(Stream& stream, std::string& out) const;

  /** The bytes of a token in the middle of a text. */
  std::string token_bytes(std::string_view token) const;
  bool has_byte_level() const;

 private:
  enum class Kind {
    Join,
    ByteLevel,
    ByteFallback,
    Fuse,
    Replace,
    Strip,
    Metaspace,
    WordPiece,
    WordEnd, // BPEDecoder
    Ctc,
    SpaceMark, // of SentencePiece models
  };
  struct Step {
    Kind kind = Kind::Fuse;
    // What Replace, Strip, Metaspace and SpaceMark look for; WordPiece's
    // prefix, BPEDecoder's suffix, CTC's pad token.
    std::string pattern = {};
    std::shared_ptr<const PatternRegex> regex =
        {}; // Replace: instead of a pattern
    std::string content = {}; // what Replace and CTC put in a place
    std::size_t start = 0; // Strip: at most so many at the beginning
    std::size_t stop = 0; // and at the end
    bool drops_first = false; // Metaspace: in the first token, not " "
    bool cleans_up = false; // WordPiece, CTC: no spaces before punctuation
    bool keeps_valid = false; // ByteFallback: characters beside bad bytes
    LeadingMark leading = LeadingMark::Kept; // SpaceMark
    bool fused = false; // sees pieces of one text, not tokens
    bool collects = false; // them until the end
  };

  void add(const JsonField& field, ChainLimits& limits);
  static Step parse_step(const JsonField& field, ChainLimits& limits);
  static Step parse_replace(const JsonField& field, ChainLimits& limits);
  void append(Step step);
  void emit(
      Stream& stream,
      std::size_t step,
      std::string token,
      std::string& out) const;
  void run(
      Stream& stream,
      std::size_t step,
      std::string token,
      std::string& out) const;
  void flush(Stream& stream, std::size_t step, std::string& out) const;
  std::optional<std::string> transform(
      const Step& step,
      Stream::StepState& state,
      std::string token) const;
  std::string replace(const Step& step, std::string_view token) const;
  static std::string strip_token(const Step& step, std::string_view token);
  static std::string strip_piece(
      const Step& step,
      Stream::StepState& state,
      std::string_view piece);
  static std::string
  word_piece(const Step& step, std::string token, bool is_first);
  static std::string unpad(const Step& step, std::string_view token);
  static std::string space_marks(
      const Step& step,
      Stream::StepState& state,
      std::string_view token);

  std::vector<Step> steps_;
  ByteLevelAlphabet alphabet_;
};

} // namespace optiq::text
