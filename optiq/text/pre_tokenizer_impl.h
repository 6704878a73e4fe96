#pragma once

#include <string>
#include <variant>
#include <vector>

#include "optiq/text/chain_limits_impl.h"
#include "optiq/text/json_fields_impl.h"
#include "optiq/text/pattern_regex_impl.h"
#include "optiq/text/split_rule_impl.h"

namespace optiq::text {

/** A text cut into pieces, one after the other. */
struct Pieces {
  std::string text;
  std::vector<std::size_t> ends; // of each piece; the last is text.size()
};

/** The `pre_tokenizer` of a tokenizer.json: Split, ByteLevel, Digits,
 * Metaspace, Sequence. */
class PreTokenizer {
 public:
  /** Of a field that may be null. `model_takes_bytes`: what ByteLevel spells
   * last may stay bytes. Throws Corrupt or Unsupported. */
  static PreTokenizer parse(const JsonField& field, bool model_takes_bytes);

  /** Cuts `text`, valid UTF-8. `at_start`: it begins the whole input. */
  Pieces apply(std::string text, bool at_start) const;
  /** Whether the pieces are bytes, which ByteLevel would have spelled. */
  bool byte_level() const {
    return byte_level_;
  }

 private:
  enum class Behavior {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
  };
  struct NumericCharacter {};
  using Matcher = std::
      variant<const SplitRule*, std::string, NumericCharacter, PatternRegex>;

  struct Split {
    Matcher matcher;
    Behavior behavior;
    bool invert;
  };
  /** Puts `text` before each piece that does not begin with it. */
  struct Prefix {
    std::string text;
    bool first_only;
  };
  struct ReplaceSpaces {
    std::string by;
  };
  struct SpellBytes {};
  using Step = std::variant<Split, Prefix, ReplaceSpaces, SpellBytes>;

  void add(const JsonField& field, ChainLimits& limits);
  void add_split(const JsonField& field);
  void add_byte_level(const JsonField& field);
  void add_metaspace(const JsonField& field);
  static Behavior parse_behavior(const JsonField& field);
  static Pieces run(const Split& split, const Pieces& pieces, bool at_start);
  static Pieces run(const Prefix& prefix, const Pieces& pieces, bool at_start);
  static Pieces
  run(const ReplaceSpaces& step, const Pieces& pieces, bool at_start);
  static Pieces
  run(const SpellBytes& step, const Pieces& pieces, bool at_start);
  static std::vector<TextRange> find_matches(
      const Matcher& matcher,
      std::string_view text);
  static bool joins(Behavior behavior, bool left_matches, bool right_matches);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

} // namespace optiq::text
