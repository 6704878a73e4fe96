#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "optiq/text/chain_limits_impl.h"
#include "optiq/text/json_fields_impl.h"
#include "optiq/text/pattern_regex.h"
#include "optiq/text/split_rule_impl.h"

namespace optiq::text {

/** A text and the pieces of it that are left, in order, none empty. */
struct Pieces {
  std::string text;
  std::vector<TextRange> ranges;
  bool starts_input = false; // the first piece begins where the input does
};

/**
 * The `pre_tokenizer` of a tokenizer.json: every type that
 * huggingface/tokenizers 0.23 has, in any order. A type is a row of a few
 * steps: splits, and changes of each piece.
 */
class PreTokenizer {
 public:
  /** Of a field that may be null. `model_takes_bytes`: what ByteLevel spells
   * last may stay bytes. Throws Corrupt or Unsupported. */
  static PreTokenizer parse(const JsonField& field, bool model_takes_bytes);

  /** Cuts `text`, valid UTF-8. `at_start`: it begins the whole input. Throws
   * Exhausted where patterns take more than `run` has. */
  Pieces apply(std::string text, bool at_start, PatternRun& run) const;
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
  /** Every character that has one of these bits of CharacterClasses. */
  struct CharacterClass {
    std::uint16_t bits;
  };
  using Matcher =
      std::variant<const SplitRule*, std::string, CharacterClass, PatternRegex>;

  struct Split {
    Matcher matcher;
    Behavior behavior;
    bool invert;
  };
  /** Cuts every so many characters. */
  struct FixedLength {
    std::size_t characters;
  };
  /** Cuts where the script changes. */
  struct Scripts {};
  /** Puts `text` before each piece that does not begin with it. */
  struct Prefix {
    std::string text;
    bool first_only;
  };
  struct ReplaceSpaces {
    std::string by;
  };
  struct SpellBytes {};
  using Step = std::
      variant<Split, FixedLength, Scripts, Prefix, ReplaceSpaces, SpellBytes>;

  struct Segment {
    TextRange range;
    bool matches;
  };
  /** What is reused from piece to piece. */
  struct Scratch {
    PatternRun& run;
    std::vector<TextRange> matches;
    std::vector<Segment> segments;
  };

  void add(const JsonField& field, ChainLimits& limits);
  bool add_simple(const std::string& type);
  void add_split(const JsonField& field);
  void add_byte_level(const JsonField& field);
  void add_metaspace(const JsonField& field);
  static Behavior parse_behavior(const JsonField& field);
  void apply_step(const Split& split, Pieces& pieces, Scratch& scratch) const;
  void apply_step(const FixedLength& step, Pieces& pieces, Scratch&) const;
  void apply_step(const Scripts& step, Pieces& pieces, Scratch&) const;
  void apply_step(const Prefix& prefix, Pieces& pieces, Scratch&) const;
  void apply_step(const ReplaceSpaces& step, Pieces& pieces, Scratch&) const;
  void apply_step(const SpellBytes& step, Pieces& pieces, Scratch&) const;
  static void
  find_matches(const Split& split, std::string_view text, Scratch& scratch);
  static bool joins(Behavior behavior, bool left_matches, bool right_matches);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

} // namespace optiq::text
