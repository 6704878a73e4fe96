#include "optiq/text/split_rule_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {
namespace {

struct NamedRule {
  std::string_view pattern;
  SplitRule rule;
};

constexpr SplitRule kGpt2{false, false, false, 0, false};
constexpr SplitRule kLlama3{true, true, false, 3, true};
constexpr SplitRule kQwen2{true, true, false, 1, true};
constexpr SplitRule kQwen35{true, true, true, 1, true};

constexpr NamedRule kRules[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     kGpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     kLlama3},
    // The same language as Llama 3's: what is possessive has nothing to give.
    {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     kLlama3},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     kQwen2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     kQwen35},
};

struct ClassifiedCharacter {
  std::uint16_t classes;
  std::uint32_t length;
};

/** Reads characters with their classes; past the end has no class. */
class Reader {
 public:
  explicit Reader(std::string_view text)
      : text_(text), classes_(CharacterClasses::instance()) {}

  ClassifiedCharacter at(std::size_t position) const {
    if (position >= text_.size()) {
      return {0, 0};
    }
    const DecodedCharacter c = decode_character(text_.data() + position);
    return {classes_.of(c.code_point), c.length};
  }

  /** End of the run from `position` of characters that have one of `wanted`
   * and none of `unwanted`; `wanted` 0 asks for none of `unwanted` only. */
  std::size_t run(
      std::size_t position,
      std::uint16_t wanted,
      std::uint16_t unwanted) const {
    while (position < text_.size()) {
      const ClassifiedCharacter c = at(position);
      const bool inside = wanted == 0 || (c.classes & wanted) != 0;
      if (!inside || (c.classes & unwanted) != 0) {
        break;
      }
      position += c.length;
    }
    return position;
  }

 private:
  std::string_view text_;
  const CharacterClasses& classes_;
};

char fold(char c, bool any_case) {
  return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

std::size_t match_contraction(const SplitRule& rule, std::string_view text) {
  if (text[0] != '\'' || text.size() < 2) {
    return 0;
  }
  const char first = fold(text[1], rule.any_case);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') {
    return 2;
  }
  // U+017F, the long s, is the one other character that folds into these.
  if (rule.any_case && text.substr(1, 2) == "\xC5\xBF") {
    return 3;
  }
  const char second = text.size() < 3 ? '\0' : fold(text[2], rule.any_case);
  const bool pair = (first == 'r' && second == 'e') ||
      (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
  return pair ? 3 : 0;
}

/** End of at most `limit` numbers (0: any) from `position`. */
std::size_t
match_numbers(const Reader& reader, std::size_t position, std::size_t limit) {
  for (std::size_t n = 0; limit == 0 || n < limit; ++n) {
    const ClassifiedCharacter c = reader.at(position);
    if ((c.classes & kIsNumber) == 0) {
      break;
    }
    position += c.length;
  }
  return position;
}

/** `text` begins with a blank. */
std::size_t match_blanks(
    const SplitRule& rule,
    const Reader& reader,
    std::string_view text) {
  const std::size_t end = reader.run(0, kIsSpace, 0);
  if (rule.newlines_apart) {
    const std::size_t newline = text.substr(0, end).find_last_of("\r\n");
    if (newline != std::string_view::npos) {
      return newline + 1;
    }
  }
  if (end == text.size()) {
    return end;
  }
  // The last blank belongs to what follows, unless it is the only one.
  const std::size_t last = previous_character(text, end);
  return last > 0 ? last : end;
}

} // namespace

const SplitRule* find_split_rule(std::string_view pattern) {
  for (const NamedRule& row : kRules) {
    if (row.pattern == pattern) {
      return &row.rule;
    }
  }
  return nullptr;
}

const SplitRule& gpt2_split_rule() {
  return kGpt2;
}

std::size_t match_split_rule(const SplitRule& rule, std::string_view text) {
  if (const std::size_t n = match_contraction(rule, text)) {
    return n;
  }
  const Reader reader(text);
  const std::uint16_t word =
      rule.marks_in_words ? kIsLetter | kIsMark : kIsLetter;
  const ClassifiedCharacter first = reader.at(0);
  if ((first.classes & word) != 0) {
    return reader.run(first.length, word, 0);
  }
  const bool space = text[0] == ' ';
  const ClassifiedCharacter second = reader.at(first.length);
  const bool leads =
      rule.any_lead ? (first.classes & (kIsNewline | kIsNumber)) == 0 : space;
  if (leads && (second.classes & word) != 0) {
    return reader.run(first.length, word, 0);
  }
  if ((first.classes & kIsNumber) != 0) {
    return match_numbers(reader, 0, rule.max_digits);
  }
  if (space && !rule.any_lead && (second.classes & kIsNumber) != 0) {
    return match_numbers(reader, first.length, rule.max_digits);
  }
  const std::uint16_t not_other = kIsSpace | kIsNumber | word;
  if ((first.classes & kIsSpace) == 0 ||
      (space && second.length != 0 && (second.classes & not_other) == 0)) {
    const std::size_t end = reader.run(first.length, 0, not_other);
    return rule.newlines_apart ? reader.run(end, kIsNewline, 0) : end;
  }
  return match_blanks(rule, reader, text);
}

} // namespace optiq::text
