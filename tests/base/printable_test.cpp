#include "optiq/base/printable.h"

#include <gtest/gtest.h>

#include "optiq/base/utf8.h"

namespace optiq {
namespace {

TEST(Printable, TextStaysAsItIs) {
  for (const char* text :
       {"",
        "model.layers.0.mlp",
        "C:\\n",
        "\xc3\xa9\xe2\x82\xac",
        "\xf0\x9f\x98\x80",
        " \xc2\xa0~"}) {
    EXPECT_EQ(printable(text), text);
    EXPECT_EQ(printable_lines(text), text);
    EXPECT_EQ(escape_invalid_utf8(text), text);
  }
}

TEST(Printable, EveryControlIsEscaped) {
  EXPECT_EQ(
      printable("\x1b[31mred\x1b]0;title\a"), "\\x1b[31mred\\x1b]0;title\\x07");
  EXPECT_EQ(printable("a\nb\tc\rd"), "a\\nb\\tc\\rd");
  EXPECT_EQ(printable(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(printable("\x7f"), "\\x7f");
  EXPECT_EQ(
      printable("\xc2\x9b"
                "31m"),
      "\\u009b31m"); // C1: CSI in one character
  EXPECT_EQ(
      printable("\xe2\x80\xae"
                "txt.exe"),
      "\\u202etxt.exe");
  EXPECT_EQ(
      printable("\xe2\x81\xa6\xe2\x81\xa9\xe2\x80\x8f\xd8\x9c"),
      "\\u2066\\u2069\\u200f\\u061c");
  EXPECT_EQ(printable("\xe2\x80\xa8"), "\\u2028");
  for (int c = 0; c < 0x20; ++c) {
    EXPECT_EQ(printable(std::string(1, static_cast<char>(c)))[0], '\\');
  }
}

TEST(Printable, BytesThatAreNoTextAreEscaped) {
  // Latin-1, an overlong '/', a surrogate, an end in the middle, C1 as a byte.
  EXPECT_EQ(printable("mod\xe9l"), "mod\\xe9l");
  EXPECT_EQ(printable("\xc0\xaf"), "\\xc0\\xaf");
  EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");
  EXPECT_EQ(printable("a\xe2\x82"), "a\\xe2\\x82");
  EXPECT_EQ(
      printable("\x9b"
                "31m"),
      "\\x9b31m");
  EXPECT_EQ(escape_invalid_utf8("mod\xe9l\n\x1b"), "mod\\xe9l\n\x1b");
}

TEST(Printable, LinesKeepNewlinesAndTabsOnly) {
  EXPECT_EQ(printable_lines("a\n\tb\r\x1b"), "a\n\tb\\r\\x1b");
}

} // namespace
} // namespace optiq
