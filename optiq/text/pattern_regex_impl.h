#pragma once

#include <cstddef>
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

/**
 * A regular expression of a tokenizer.json that has no hand-written rule, run
 * by PCRE2 with our character classes in place of \p{L}, \p{N}, \p{M} and \s.
 * Only constructs that mean the same in PCRE2 and in Oniguruma, which the file
 * format assumes, are let through.
 */
class PatternRegex {
 public:
  /** Throws Unsupported, naming pattern and construct; `where` names the
   * field. */
  PatternRegex(const std::string& pattern, const std::string& where);
  ~PatternRegex();
  PatternRegex(PatternRegex&&) noexcept;
  PatternRegex& operator=(PatternRegex&&) noexcept;

  /** All matches, leftmost first, in valid UTF-8. Throws Exhausted when the
   * pattern backtracks beyond its limits. */
  std::vector<TextRange> find_all(std::string_view text) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

} // namespace optiq::text
