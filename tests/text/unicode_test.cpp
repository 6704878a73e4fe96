#include <gtest/gtest.h>

#include "optiq/text/unicode_impl.h"
#include "optiq/text/unicode_tables.h"

namespace optiq::text {
namespace {

std::string lossy(std::string_view bytes) {
  std::string out;
  append_lossy(out, bytes, false);
  return out;
}

// Right-hand sides: bytes.decode(errors="replace") of Python 3.11, with U+FFFD
// written as "?".
TEST(Unicode, ReplacesInvalidBytesAsPythonDoes) {
  const struct {
    std::string_view bytes;
    std::string expected;
  } kCases[] = {
      {"", ""},
      {"plain", "plain"},
      {"\x80", "?"},
      {"\xC0\x80", "??"},
      {"\xC3", "?"},
      {"a\xC3(", "a?("},
      {"\xE2\x82", "?"},
      {"\xE2\x82z", "?z"},
      {"\xE0\x80\x80", "???"},
      {"\xED\xA0\x80", "???"}, // a surrogate
      {"\xF0\x9F\x98", "?"},
      {"\xF0\x9F\x98\xF0\x9F\x98\x80", "?\xF0\x9F\x98\x80"},
      {"\xF4\x90\x80\x80", "????"},
      {"\xF5\xFF", "??"},
      {std::string_view("\0\xFF\0", 3), std::string("\0?\0", 3)},
  };
  for (const auto& c : kCases) {
    std::string got = lossy(c.bytes);
    for (std::size_t at;
         (at = got.find("\xEF\xBF\xBD")) != std::string::npos;) {
      got.replace(at, 3, "?");
    }
    EXPECT_EQ(got, c.expected);
    EXPECT_EQ(is_valid_utf8(c.bytes), got == c.bytes);
  }
}

TEST(Unicode, LeavesAnIncompleteCharacterForLater) {
  std::string out;
  EXPECT_EQ(append_lossy(out, "a\xE2\x82", true), 1u);
  EXPECT_EQ(out, "a");
}

TEST(Unicode, EncodesAndDecodesEveryCodePoint) {
  for (std::uint32_t c = 0; c < 0x110000; ++c) {
    std::string text;
    append_utf8(text, c);
    const DecodedCharacter back = decode_character(text.data());
    ASSERT_EQ(back.code_point, c);
    ASSERT_EQ(back.length, text.size());
    ASSERT_EQ(previous_character(text, text.size()), 0u);
    ASSERT_EQ(is_valid_utf8(text), c < 0xD800 || c > 0xDFFF) << c;
  }
}

TEST(Unicode, FindsBadBytesAtEveryOffset) {
  for (std::size_t at = 0; at < 40; ++at) {
    std::string text(40, 'x');
    text[at] = '\xBF';
    EXPECT_FALSE(is_valid_utf8(text)) << at;
  }
}

// The totals of DerivedGeneralCategory.txt, Unicode 16.0.
TEST(Unicode, ClassesHaveTheSizesOfUnicode16) {
  const CharacterClasses& classes = CharacterClasses::instance();
  std::size_t letters = 0;
  std::size_t numbers = 0;
  std::size_t marks = 0;
  std::size_t spaces = 0;
  for (std::uint32_t c = 0; c < 0x110000; ++c) {
    letters += (classes.of(c) & kIsLetter) != 0 ? 1 : 0;
    numbers += (classes.of(c) & kIsNumber) != 0 ? 1 : 0;
    marks += (classes.of(c) & kIsMark) != 0 ? 1 : 0;
    spaces += (classes.of(c) & kIsSpace) != 0 ? 1 : 0;
  }
  EXPECT_EQ(letters, 141028u);
  EXPECT_EQ(numbers, 1911u);
  EXPECT_EQ(marks, 2501u);
  EXPECT_EQ(spaces, 25u);
}

TEST(Unicode, ClassesOfSingleCharacters) {
  const CharacterClasses& classes = CharacterClasses::instance();
  EXPECT_EQ(classes.of('a'), kIsLetter | kIsWord);
  EXPECT_EQ(classes.of('7'), kIsNumber | kIsNumeric | kIsWord);
  EXPECT_EQ(classes.of('\n'), kIsSpace | kIsNewline);
  EXPECT_EQ(classes.of('_'), kIsWord | kIsPunctuation);
  EXPECT_EQ(
      classes.of(0x301),
      kIsMark | kIsWord | kIsNfcMark | kIsNfcUnstable | kIsAccent |
          kIsBertAccent);
  EXPECT_EQ(classes.of(0xB2), kIsNumber | kIsNumeric); // superscript two
  EXPECT_EQ(classes.of(0x180E), kIsBertControl); // a space until Unicode 6.3
  EXPECT_EQ(classes.of(0x11DE0), kIsNumeric); // a digit since Unicode 17.0
}

} // namespace
} // namespace optiq::text
