#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace optiq::text {

/**
 * The compiled map of a SentencePiece normalizer (`precompiled_charsmap`):
 * strings and what they are replaced by. All numbers are little endian:
 *
 *   u32 bytes of the double array
 *   u32 units[]: a Darts-clone double array, from strings to places in texts
 *   texts, each ended by a NUL
 *
 * A unit: bits 0-7 label; bit 8 whether a string ends here, whose value is at
 * the children's base; bits 10-30 offset to that base, in units of 256 when
 * bit 9 is set; bit 31 set in values.
 */
class CharsMap {
 public:
  /** Throws Corrupt, naming `where`. */
  static CharsMap parse(std::string_view bytes, const std::string& where);

  struct Rule {
    std::size_t bytes; // of the text that is replaced
    std::string_view content; // valid UTF-8, may be empty
  };
  /** The rule for the longest beginning of `text` that has one. */
  std::optional<Rule> longest_rule(std::string_view text) const;
  /** For the shortest. */
  std::optional<Rule> shortest_rule(std::string_view text) const;

 private:
  void check(const std::string& where) const;
  std::string_view content_at(std::uint32_t place) const {
    return texts_.c_str() + place;
  }
  template <typename Visit>
  void for_each_rule(std::string_view text, Visit visit) const;

  std::vector<std::uint32_t> units_;
  std::string texts_; // ends in a NUL
};

/** `text`, valid UTF-8, as the normalizer Precompiled of a tokenizer.json has
 * it: a grapheme cluster of less than 6 bytes is replaced by the rule of its
 * shortest beginning, whatever follows in it; else its characters are. */
std::string apply_charsmap(const CharsMap& map, std::string_view text);

} // namespace optiq::text
