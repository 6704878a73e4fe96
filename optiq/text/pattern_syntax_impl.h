#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/text/code_point_set_impl.h"

namespace optiq::text {

constexpr std::uint32_t kNoLimit = ~0u; // of a repetition

/** A part of a regular expression. */
struct PatternNode {
  enum class Kind {
    Set, // one character of `set`
    Sequence,
    Alternatives, // the first one that leads to a match
    Repeat, // of the one child
    Capture, // the child's text is group `number`
    Atomic, // the child's first match is not given up
    Look, // the child matches before or behind this place, or does not
    Assertion,
    BackReference, // the text of one of `numbers`, the last that has one
    Keep, // the match begins here
  };
  enum class Mode { Greedy, Lazy, Possessive };
  enum class Place {
    LineStart,
    LineEnd,
    TextStart,
    TextEnd,
    TextEndOrNewline, // the end, or before a newline that ends the text
    SearchStart,
    WordBoundary,
    NotWordBoundary,
  };

  Kind kind = Kind::Sequence;
  std::vector<PatternNode> children;
  CodePointSet set;
  std::uint32_t min = 0; // Repeat
  std::uint32_t max = 0; // Repeat; kNoLimit
  Mode mode = Mode::Greedy; // Repeat
  Place place = Place::TextStart; // Assertion
  bool behind = false; // Look
  bool negated = false; // Look
  std::uint32_t number = 0; // Capture, from 1
  std::vector<std::uint32_t> numbers; // BackReference
};

PatternNode set_node(CodePointSet set);
PatternNode group_node(
    PatternNode::Kind kind,
    std::vector<PatternNode> children);

/**
 * A regular expression as huggingface/tokenizers has it: the default syntax of
 * Oniguruma 6.9 (doc/RE there). Calls of groups, conditions, absent operators,
 * callouts and grapheme clusters, which no tokenizer uses, are refused.
 */
struct PatternSyntax {
  PatternNode root;
  bool has_back_references = false;
};

/** `where` names the field that holds the pattern, valid UTF-8. Throws Corrupt
 * (no regular expression) or Unsupported, naming pattern and place. */
PatternSyntax parse_pattern(std::string_view pattern, const std::string& where);

/** What a reader of a pattern knows: the text and how far it is read. */
class PatternReader {
 public:
  PatternReader(std::string_view pattern, const std::string& where);

  bool at_end() const {
    return at_ == text_.size();
  }
  /** U+0000 at the end. */
  char32_t peek(std::size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : U'\0';
  }
  char32_t next() {
    return text_[at_++];
  }
  bool looking_at(std::u32string_view text) const {
    return std::u32string_view(text_).substr(at_, text.size()) == text;
  }
  /** Moves on when the text comes next. */
  bool skip(std::u32string_view text);
  std::size_t position() const {
    return at_;
  }
  void go_to(std::size_t position) {
    at_ = position;
  }
  /** The ASCII text up to `close`, behind which it moves on; refuses what is
   * not closed. */
  std::string until(char32_t close);
  /** A number of at most nine digits; false, without moving, if none. */
  bool read_number(std::uint32_t& number);
  /** What follows a '\' and means one code point; false, without moving, if it
   * means something else. */
  bool read_escaped_character(char32_t& c, bool in_set);
  /** What follows a '\' and means a set: d D w W s S h H p{...} P{...};
   * false, without moving, if it means something else. */
  bool read_escaped_set(CodePointSet& set, bool in_set);

  [[noreturn]] void refuse(std::string_view construct) const;
  [[noreturn]] void reject(std::string_view found) const;

 private:
  bool read_hexadecimal(char32_t& c, std::size_t digits);
  CodePointSet read_property(bool negated);

  std::string_view pattern_;
  const std::string& where_;
  std::u32string text_;
  std::size_t at_ = 0;
};

/** A class in brackets, read from behind its '['. In any case, some members may
 * be equal to texts of several characters: then alternatives. */
PatternNode parse_pattern_class(PatternReader& reader, bool any_case);

/** What a run of literal characters matches in any case. */
PatternNode any_case_node(std::u32string_view literals);

/** \w and \b: [[:word:]], and what Oniguruma's table of Latin-1 has besides. */
CodePointSet word_characters();

} // namespace optiq::text
