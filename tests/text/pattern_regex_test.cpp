#include <gtest/gtest.h>

#include "optiq/base/error.h"
#include "optiq/text/pattern_regex_impl.h"

namespace optiq::text {
namespace {

std::vector<std::string> matches(
    const std::string& pattern,
    const std::string& text) {
  std::vector<std::string> found;
  for (const TextRange& range : PatternRegex(pattern, "t").find_all(text)) {
    found.push_back(text.substr(range.begin, range.end - range.begin));
  }
  return found;
}

using Strings = std::vector<std::string>;

TEST(PatternRegex, UsesOurCharacterClasses) {
  // U+1C89 is a letter since Unicode 16.0, which the system's PCRE2 may lack;
  // U+180E is no space, which it has as one.
  EXPECT_EQ(matches(R"(\p{L}+)", "a\u1c89b"), Strings{"a\u1c89b"});
  EXPECT_EQ(matches(R"(\s)", "a\u180eb c"), Strings{" "});
  EXPECT_EQ(matches(R"([^\s\p{N}]+)", "ab 1c"), (Strings{"ab", "c"}));
  EXPECT_EQ(matches(R"(\P{L}|\S)", "a1"), (Strings{"a", "1"}));
  EXPECT_EQ(matches(R"((?i:'s)|x)", "'S'sx"), (Strings{"'S", "'s", "x"}));
  EXPECT_EQ(matches(R"(\s+(?!\S))", "a  b  "), (Strings{" ", "  "}));
}

TEST(PatternRegex, RefusesWhatMayMeanSomethingElse) {
  for (const char* pattern :
       {R"(\w+)",
        R"(\p{Lu}+)",
        R"(\bx)",
        R"(a.c)",
        R"(^a)",
        R"(a$)",
        R"(a{2}+)",
        R"(a{,2})",
        R"([a[b]])",
        R"([a&&b])",
        R"([\S])",
        R"((?<=a)b)",
        R"((?i:\p{L}))",
        R"((?i:é))",
        R"((?i:ss))",
        R"((*LIMIT_MATCH=1)a)",
        R"([]a])",
        R"([a)",
        R"((a)",
        R"(a))",
        R"(\)",
        R"(\p{L)",
        R"(a*)",
        R"((a)\1)",
        R"()"}) {
    try {
      const PatternRegex regex(pattern, "pre_tokenizer.pattern");
      ADD_FAILURE() << "accepted " << pattern;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::Unsupported) << pattern;
      EXPECT_NE(std::string(error.what()).find(pattern), std::string::npos);
      EXPECT_NE(
          std::string(error.what()).find("pre_tokenizer.pattern"),
          std::string::npos);
    }
  }
}

TEST(PatternRegex, StopsWhenItBacktracksTooLong) {
  const PatternRegex regex(R"((?:a+)+[bc])", "t");
  try {
    regex.find_all(std::string(64, 'a'));
    ADD_FAILURE() << "2^64 steps done";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Exhausted);
  }
}

} // namespace
} // namespace optiq::text
