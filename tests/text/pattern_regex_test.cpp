#include "optiq/text/pattern_regex.h"

#include <ctime>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/slowdown.h"

#include "optiq/base/error.h"

namespace optiq::text {
namespace {

using Strings = std::vector<std::string>;

Strings matches(const std::string& pattern, const std::string& text) {
  Strings found;
  std::vector<TextRange> ranges;
  PatternRun run(text.size());
  PatternRegex(pattern, "t").find_all(text, run, ranges);
  for (const TextRange& range : ranges) {
    found.push_back(text.substr(range.begin, range.end - range.begin));
  }
  return found;
}

struct Case {
  const char* pattern;
  const char* text;
  Strings found;
};

void expect_matches(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    EXPECT_EQ(matches(c.pattern, c.text), c.found) << c.pattern;
  }
}

TEST(PatternRegex, Sets) {
  expect_matches({
      {R"(\p{L}+)", "a\u1c89b", {"a\u1c89b"}}, // a letter since Unicode 16.0
      {R"(\s)", "a\u180eb c", {" "}},
      {R"([^\s\p{N}]+)", "ab 1c", {"ab", "c"}},
      {R"(\P{L}|\S)", "a1", {"a", "1"}},
      {R"(\p{^Lu})", "Aa", {"a"}},
      {R"([\p{Lu}\p{Lt}]+)", "aA\u01c5b", {"A\u01c5"}},
      {R"(\p{Han}+)", "a漢字あ", {"漢字"}},
      {R"(\p{Script=Hiragana}+)", "漢あい", {"あい"}},
      {R"([a-z&&[^aeiou]]+)", "abcde", {"bcd"}},
      {R"([[:alpha:][:digit:]]+)", "é1 _", {"é1"}},
      {R"([^[^a-c]b])", "abcd", {"a", "c"}},
      {R"([]a-]+)", "]-a[", {"]-a"}},
      {R"(\h+)", "xfF9g", {"fF9"}},
      {R"(\w|[\w])", "²½_", {"²", "½", "_"}},
      {R"([\w])", "²½_", {"_"}},
      {R"(\d+)", "1\u0663\u00b2", {"1\u0663"}},
      {R"(.)", "a\nb", {"a", "b"}},
  });
}

TEST(PatternRegex, Repetitions) {
  expect_matches({
      {R"(a+?b|a)", "aab", {"aab"}},
      {R"(a++a|b)", "aab", {"b"}},
      {R"(a{,2})", "aaa", {"aa", "a"}},
      {R"(a{1,2}+b)", "aaab", {"aaab"}}, // a repetition of a repetition
      {R"((?>a|ab)c|abc)", "abc", {"abc"}},
      {R"((?:a|ab)(?:c|bcd))", "abcd", {"abcd"}},
      {R"((?:a?)*b)", "aab", {"aab"}},
      {R"(a{x)", "a{x", {"a{x"}},
  });
}

TEST(PatternRegex, Places) {
  expect_matches({
      {R"(^a)", "a\na", {"a", "a"}}, // lines, always
      {R"(a$)", "a\na", {"a", "a"}},
      {R"(\Aa)", "aa", {"a"}},
      {R"(a\Z)", "aa\n", {"a"}},
      {R"(a\z)", "aa\n", {}},
      {R"(\ba)", "a ba a", {"a", "a"}},
      {R"(\Ga)", "aaba", {"a", "a"}},
      {R"(\s+(?!\S))", "a  b  ", {" ", "  "}},
      {R"((?<!a)b|(?<=xa+)b)", "ab b xaab", {"b", "b"}},
      {R"(a\Kb)", "abb", {"b"}},
      {R"((?:\r?\n)+(?!\r?\n))", "a\n\r\n\nb", {"\n\r\n\n"}},
  });
}

TEST(PatternRegex, AnyCase) {
  expect_matches({
      {R"((?i:'s)|x)", "'S'sx'ſ", {"'S", "'s", "x", "'ſ"}},
      {R"(a(?i)b|c)", "aB C c", {"aB"}},
      {R"((?i:st))", "ST ﬆ", {"ST", "ﬆ"}},
      {R"((?i:sss))", "sss ßs sß", {"sss", "ßs"}}, // as Oniguruma
      {R"((?i:[^k]))", "kK\u212a", {}},
      {R"((?i:\u00e9))", "É", {"É"}},
  });
}

TEST(PatternRegex, GroupsAndEmptyMatches) {
  expect_matches({
      {R"((a|b)\1)", "abba", {"bb"}},
      {R"((?<n>.)\k<n>)", "abba", {"bb"}},
      {R"((?=b))", "abab", {"", ""}},
      {R"(x*)", "axa", {"", "x", ""}},
      {"", "ab", {"", "", ""}},
  });
}

TEST(PatternRegex, NamesWhatIsNoPattern) {
  for (const char* pattern :
       {"a**{2}(",
        "[a",
        "(a",
        "a)",
        "\\",
        "[b-a]",
        "[a-\\d]",
        "*a",
        "(?=a)*",
        "^*",
        "\\2(a)",
        "[]"}) {
    test::expect_error(ErrorKind::Corrupt, {pattern, "pre_tokenizer.x"}, [&] {
      PatternRegex(pattern, "pre_tokenizer.x");
    });
  }
}

TEST(PatternRegex, RefusesByName) {
  for (const char* pattern :
       {"\\p{Klingon}",
        "\\X",
        "(a)\\g<1>",
        "(?~a)",
        "(?(1)a)",
        "(*FAIL)",
        "(?P<n>a)",
        "(?i:(a)\\1)"}) {
    test::expect_error(
        ErrorKind::Unsupported, {pattern, "pre_tokenizer.x"}, [&] {
          PatternRegex(pattern, "pre_tokenizer.x");
        });
  }
}

// Small patterns that would ask for a program or a stack without end.
TEST(PatternRegex, RefusesProgramsWithoutMeasure) {
  std::string nested;
  std::string sets;
  for (int i = 0; i < 2000; ++i) {
    nested += "(";
    sets += fmt::format("\\x{{{:x}}}", 0x4E00 + i);
  }
  for (const std::string& pattern :
       {std::string("(?:(?:(?:ab){1000}){1000}){1000}"),
        std::string("(?:(?:){100000}){100000}"),
        std::string("a{999999999}"),
        std::string(20'000, 'a'),
        nested,
        "[" + nested,
        sets}) {
    EXPECT_THROW(PatternRegex(pattern, "t"), Error) << pattern.substr(0, 40);
  }
}

TEST(PatternRegex, OneBudgetForAText) {
  // Each is quick at one place and takes n^2 or 2^n steps in all.
  const std::string blanks(1u << 20, ' ');
  for (const char* pattern : {R"(\s+$)", R"((?:a+)+[bc])", R"((?:\s|\s)*x)"}) {
    const PatternRegex regex(pattern, "t");
    const std::string text = std::string(64, 'a') + blanks + "y";
    PatternRun run(text.size());
    std::vector<TextRange> found;
    const std::clock_t begin = std::clock();
    test::expect_error(
        ErrorKind::Exhausted, {pattern, "[Tokenizer::encode]"}, [&] {
          regex.find_all(text, run, found);
        });
    EXPECT_LT(std::clock() - begin, 4 * CLOCKS_PER_SEC * test::kSlowdown)
        << pattern;
    // What is used up is used up for the next pattern too.
    EXPECT_THROW(PatternRegex(".", "t").find_all(text, run, found), Error);
  }
}

} // namespace
} // namespace optiq::text
