#include "optiq/report/markup.h"

#include <gtest/gtest.h>

namespace optiq::report {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";

TEST(Escape, MarkupCharactersBecomeEntities) {
  EXPECT_EQ(
      escape("<script>\"a\" & 'b'</script>"),
      "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;");
  EXPECT_EQ(escape("plain"), "plain");
  EXPECT_EQ(escape(""), "");
}

TEST(Escape, KeepsTextOfEveryLength) {
  // One code point of one, two, three and four bytes.
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  EXPECT_EQ(escape(text), text);
}

TEST(Escape, ReplacesWhatXmlForbids) {
  struct Case {
    const char* what;
    std::string text;
    int replaced;
  };
  const Case cases[] = {
      {"NUL", std::string(1, '\0'), 1},
      {"escape", "\x1B", 1},
      {"lone continuation", "\x80", 1},
      {"cut two-byte sequence", "\xC3", 1},
      {"cut four-byte sequence", "\xF0\x9F\x98", 3},
      {"overlong slash", "\xC0\xAF", 2},
      {"overlong three bytes", "\xE0\x80\xAF", 3},
      {"surrogate", "\xED\xA0\x80", 1},
      {"noncharacter U+FFFF", "\xEF\xBF\xBF", 1},
      {"above U+10FFFF", "\xF4\x90\x80\x80", 1},
      {"lead byte that does not exist", "\xFF", 1},
  };
  for (const Case& c : cases) {
    std::string expected;
    for (int i = 0; i < c.replaced; ++i) {
      expected += kReplacement;
    }
    EXPECT_EQ(escape("x" + c.text + "y"), "x" + expected + "y") << c.what;
  }
  EXPECT_EQ(escape("\t\r\n"), "\t\r\n");
}

TEST(Markup, ClosesAndEscapes) {
  Markup page;
  page.open("p", {{"title", "a \"b\""}})
      .text("1 < 2")
      .leaf("br", {})
      .element("b", {}, "&")
      .close();
  EXPECT_EQ(
      std::move(page).finish("<!DOCTYPE html>"),
      "<!DOCTYPE html>\n<p title=\"a &quot;b&quot;\">1 &lt; 2<br/>\n"
      "<b>&amp;</b>\n</p>\n");
}

} // namespace
} // namespace optiq::report
