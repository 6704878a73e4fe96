#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "optiq/text/chain_limits_impl.h"
#include "optiq/text/charsmap_impl.h"
#include "optiq/text/json_fields_impl.h"
#include "optiq/text/normalization_form_impl.h"
#include "optiq/text/pattern_regex.h"

namespace optiq::text {

/** `text` with every occurrence of `pattern` (not empty) replaced. */
std::string replace_all(
    std::string_view text,
    std::string_view pattern,
    std::string_view content);

/** The `normalizer` of a tokenizer.json: every type that
 * huggingface/tokenizers 0.23 has. A type is a row of a few steps. */
class Normalizer {
 public:
  /** Of a field that may be null. Throws Corrupt or Unsupported. */
  static Normalizer parse(const JsonField& field);

  /** `text` is valid UTF-8. Throws Exhausted where patterns take more than
   * `run` has. */
  std::string apply(std::string_view text, PatternRun& run) const;
  bool is_identity() const {
    return steps_.empty();
  }

 private:
  struct ReplaceText {
    std::string pattern; // not empty
    std::string content;
  };
  struct ReplacePattern {
    PatternRegex pattern;
    std::string content;
  };
  struct Prepend {
    std::string text;
  };
  struct Strip {
    bool left;
    bool right;
  };
  /** Drops characters that have one of these bits of CharacterClasses. */
  struct RemoveClass {
    std::uint16_t bits;
  };
  struct Lowercase {};
  struct BlankSpaces {}; // every White_Space becomes U+0020
  struct SpaceIdeographs {}; // a blank before and behind each
  struct Nmt {}; // of SentencePiece: no controls, odd blanks become U+0020
  struct SpellBytes {};
  struct Precompiled {
    CharsMap map;
  };
  using Step = std::variant<
      NormalizationForm,
      ReplaceText,
      ReplacePattern,
      Prepend,
      Strip,
      RemoveClass,
      Lowercase,
      BlankSpaces,
      SpaceIdeographs,
      Nmt,
      SpellBytes,
      Precompiled>;

  void add(const JsonField& field, ChainLimits& limits);
  void add_replace(const JsonField& field, ChainLimits& limits);
  void add_bert(const JsonField& field);
  bool add_simple(const std::string& type);
  static std::string
  apply_step(NormalizationForm, const std::string&, PatternRun&);
  static std::string
  apply_step(const ReplaceText& step, const std::string& text, PatternRun&);
  static std::string apply_step(
      const ReplacePattern& step,
      const std::string& text,
      PatternRun& run);
  static std::string
  apply_step(const Prepend& step, const std::string& text, PatternRun&);
  static std::string
  apply_step(const Strip& step, const std::string& text, PatternRun&);
  static std::string
  apply_step(const RemoveClass& step, const std::string& text, PatternRun&);
  static std::string
  apply_step(Lowercase, const std::string& text, PatternRun&);
  static std::string
  apply_step(BlankSpaces, const std::string& text, PatternRun&);
  static std::string
  apply_step(SpaceIdeographs, const std::string& text, PatternRun&);
  static std::string apply_step(Nmt, const std::string& text, PatternRun&);
  static std::string
  apply_step(SpellBytes, const std::string& text, PatternRun&);
  static std::string
  apply_step(const Precompiled& step, const std::string& text, PatternRun&);

  std::vector<Step> steps_;
};

} // namespace optiq::text
