#include "optiq/base/error.h"
#include "optiq/text/pattern_syntax_impl.h"
#include "optiq/text/unicode_impl.h"
#include "optiq/text/unicode_properties_impl.h"

namespace optiq::text {
namespace {

/** The pattern, cut to a length that a message can show. */
std::string excerpt(std::string_view pattern) {
  constexpr std::size_t kLongest = 200;
  std::string out;
  append_lossy(out, pattern.substr(0, kLongest), true);
  return pattern.size() > kLongest ? out + "..." : out;
}

bool is_digit(char32_t c) {
  return c >= U'0' && c <= U'9';
}

/** Value of a hexadecimal digit; -1 for another character. */
int digit_value(char32_t c) {
  if (is_digit(c)) {
    return static_cast<int>(c - U'0');
  }
  const char32_t lower = c | 0x20;
  return lower >= U'a' && lower <= U'f' ? static_cast<int>(lower - U'a') + 10
                                        : -1;
}

} // namespace

CodePointSet word_characters() {
  const CodePointSet latin1(std::vector<CodePointRange>{
      {0xB2, 0xB3}, {0xB9, 0xB9}, {0xBC, 0xBE}}); // numbers of other kinds
  return find_posix_class("word").value().united(latin1);
}

PatternReader::PatternReader(std::string_view pattern, const std::string& where)
    : pattern_(pattern), where_(where) {
  for (std::size_t at = 0; at < pattern.size();) {
    const DecodedCharacter c = decode_character(pattern.data() + at);
    text_ += static_cast<char32_t>(c.code_point);
    at += c.length;
  }
}

void PatternReader::refuse(std::string_view construct) const {
  fail(
      ErrorKind::Unsupported,
      "[Tokenizer::parse] {}: found {} at character {} of the pattern '{}', "
      "which this version does not implement. Use a model with another "
      "tokenizer",
      where_,
      construct,
      at_,
      excerpt(pattern_));
}

void PatternReader::reject(std::string_view found) const {
  fail(
      ErrorKind::Corrupt,
      "[Tokenizer::parse] {}: found {} at character {} of the pattern '{}', "
      "expected a regular expression in the syntax of Oniguruma. Fetch the "
      "file again, or take the one of the original model",
      where_,
      found,
      at_,
      excerpt(pattern_));
}

bool PatternReader::skip(std::u32string_view text) {
  if (!looking_at(text)) {
    return false;
  }
  at_ += text.size();
  return true;
}

std::string PatternReader::until(char32_t close) {
  std::string out;
  while (peek() != close) {
    if (at_end() || peek() > 0x7E) {
      reject("a name that is not closed");
    }
    out += static_cast<char>(next());
  }
  ++at_;
  return out;
}

bool PatternReader::read_number(std::uint32_t& number) {
  std::size_t digits = 0;
  number = 0;
  while (is_digit(peek(digits))) {
    if (digits == 9) {
      refuse("a number of more than nine digits");
    }
    number = number * 10 + static_cast<std::uint32_t>(peek(digits++) - U'0');
  }
  at_ += digits;
  return digits > 0;
}

/** Up to so many digits; no digit at all is no number. */
bool PatternReader::read_hexadecimal(char32_t& c, std::size_t digits) {
  std::uint32_t value = 0;
  std::size_t n = 0;
  while (n < digits && digit_value(peek(n)) >= 0) {
    value = value << 4 | static_cast<std::uint32_t>(digit_value(peek(n++)));
  }
  if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
    reject("a number that is no code point");
  }
  c = value;
  at_ += n;
  return n > 0;
}

bool PatternReader::read_escaped_character(char32_t& c, bool in_set) {
  constexpr std::u32string_view kLetters = U"tnrfvae";
  constexpr std::u32string_view kMeant = U"\t\n\r\f\v\a\x1B";
  const char32_t letter = peek();
  if (const std::size_t i = kLetters.find(letter);
      i != std::u32string_view::npos && !at_end()) {
    c = kMeant[i];
    ++at_;
    return true;
  }
  if (letter == U'x' || letter == U'u') {
    ++at_;
    const bool braces = letter == U'x' && skip(U"{");
    const std::size_t digits = letter == U'u' ? 4 : braces ? 8 : 2;
    if (!read_hexadecimal(c, digits) || (braces && !skip(U"}"))) {
      refuse("a code point that is not one hexadecimal number");
    }
    if (letter == U'x' && !braces && c > 0x7F) {
      refuse("a byte of a character");
    }
    return true;
  }
  if (letter == U'b' && in_set) {
    c = U'\b';
    ++at_;
    return true;
  }
  if (letter == U'0') {
    std::uint32_t octal = 0;
    for (int i = 0; i < 3 && peek() >= U'0' && peek() <= U'7'; ++i) {
      octal = octal << 3 | static_cast<std::uint32_t>(next() - U'0');
    }
    c = octal;
    return true;
  }
  if (letter == U'c' || letter == U'C' || letter == U'M' || letter == U'o') {
    refuse("a control character or octal number");
  }
  const bool word = digit_value(letter) >= 0 || (letter | 0x20) >= U'a';
  if (at_end() ||
      (word && letter < 0x7B && letter != U'\\' &&
       std::u32string_view(U"[]^_`").find(letter) ==
           std::u32string_view::npos)) {
    return false;
  }
  c = next();
  return true;
}

CodePointSet PatternReader::read_property(bool negated) {
  if (!skip(U"{")) {
    refuse("a \\p without braces");
  }
  if (skip(U"^")) {
    negated = !negated;
  }
  const std::string name = until(U'}');
  const auto set = find_unicode_property(name);
  if (!set) {
    refuse("the property '" + name + "'");
  }
  return negated ? set->complement() : *set;
}

bool PatternReader::read_escaped_set(CodePointSet& set, bool in_set) {
  struct Row {
    char32_t letter;
    const char* posix;
  };
  constexpr Row kRows[] = {
      {U'd', "digit"}, {U'w', "word"}, {U's', "space"}, {U'h', "xdigit"}};
  const char32_t letter = peek();
  if (letter == U'p' || letter == U'P') {
    ++at_;
    set = read_property(letter == U'P');
    return true;
  }
  for (const Row& row : kRows) {
    if (letter == row.letter || (letter | 0x20) == row.letter) {
      set = row.letter == U'w' && !in_set ? word_characters()
                                          : find_posix_class(row.posix).value();
      set = letter == row.letter ? set : set.complement();
      ++at_;
      return true;
    }
  }
  return false;
}

} // namespace optiq::text
