#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace optiq::text {

/** Bytes [begin, end) of a text. */
struct TextRange {
  std::size_t begin;
  std::size_t end;
};

struct PatternProgram;

/**
 * What the steps of a tokenizer may still take for one text, all of them
 * together, and their buffers. A pattern from a file could try for ever, a
 * chain of replacements could fill any memory.
 */
class PatternRun {
 public:
  /** Of a text of so many bytes. */
  explicit PatternRun(std::size_t text_bytes);
  /** Throws Exhausted for more bytes than a step may make of the text. */
  void expect_room_for(std::size_t bytes) const;

 private:
  friend class PatternMatcher;
  /** A way that was not taken. */
  struct Choice {
    std::uint32_t instruction;
    std::uint32_t place;
    std::uint32_t more; // of the instruction
  };
  std::size_t most_bytes_;
  std::int64_t steps_;
  std::int64_t steps_left_;
  std::vector<Choice> choices_;
  std::vector<std::uint32_t> slots_;
};

/**
 * A regular expression of a tokenizer.json, with the matches that Oniguruma
 * finds (pattern_syntax_impl.h): a backtracking matcher, first match in the
 * order of the alternatives.
 */
class PatternRegex {
 public:
  /** Throws Corrupt or Unsupported, naming pattern and construct; `where` names
   * the field. */
  PatternRegex(const std::string& pattern, const std::string& where);
  ~PatternRegex();
  PatternRegex(PatternRegex&&) noexcept;
  PatternRegex& operator=(PatternRegex&&) noexcept;

  /** Puts all matches into `matches`, leftmost first, in valid UTF-8. A match
   * may be empty, but not where the one before it ends. Throws Exhausted when
   * the text takes more than `run` has. */
  void find_all(
      std::string_view text,
      PatternRun& run,
      std::vector<TextRange>& matches) const;
  /** The text with `content` in place of every match. Throws Exhausted. */
  std::string replace_all(
      std::string_view text,
      std::string_view content,
      PatternRun& run) const;

 private:
  std::string pattern_;
  std::unique_ptr<const PatternProgram> program_;
};

} // namespace optiq::text
