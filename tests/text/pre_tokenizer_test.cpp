#include <gtest/gtest.h>

#include "support/expect_error.h"

#include "optiq/text/pre_tokenizer_impl.h"

namespace optiq::text {
namespace {

using artifacts::Json;
using Strings = std::vector<std::string>;

Strings pieces(const std::string& json, const std::string& text) {
  const Json parsed = Json::parse(json);
  PatternRun run(text.size());
  const Pieces cut =
      PreTokenizer::parse(JsonField(parsed, "t"), false).apply(text, true, run);
  Strings found;
  for (const TextRange& range : cut.ranges) {
    found.push_back(cut.text.substr(range.begin, range.end - range.begin));
  }
  return found;
}

// What the PyPI package tokenizers 0.23.3 gives.
TEST(PreTokenizer, EveryType) {
  const std::string text = "Hello, wörld! 12 a-b\t漢字かな 3½ don't";
  const struct {
    const char* json;
    std::string text;
    Strings found;
  } kCases[] = {
      {R"({"type": "BertPreTokenizer"})",
       text,
       {"Hello",
        ",",
        "wörld",
        "!",
        "12",
        "a",
        "-",
        "b",
        "漢字かな",
        "3½",
        "don",
        "'",
        "t"}},
      {R"({"type": "Whitespace"})",
       text,
       {"Hello",
        ",",
        "wörld",
        "!",
        "12",
        "a",
        "-",
        "b",
        "漢字かな",
        "3",
        "½",
        "don",
        "'",
        "t"}},
      {R"({"type": "WhitespaceSplit"})",
       text,
       {"Hello,", "wörld!", "12", "a-b", "漢字かな", "3½", "don't"}},
      {R"({"type": "CharDelimiterSplit", "delimiter": "-"})",
       "-a--b",
       {"a", "b"}},
      {R"({"type": "Punctuation", "behavior": "Contiguous"})",
       "a,b!!c",
       {"a", ",", "b", "!!", "c"}},
      {R"({"type": "Punctuation"})", "a!!c$", {"a", "!", "!", "c", "$"}},
      {R"({"type": "FixedLength", "length": 4})",
       "añ漢bcd efg",
       {"añ漢b", "cd e", "fg"}},
      {R"({"type": "FixedLength"})", "abcdef", {"abcde", "f"}},
      {R"({"type": "UnicodeScripts"})",
       "どこで abc где 漢字ー12. x",
       {"どこで ", "abc ", "где ", "漢字ー", "12. ", "x"}},
      {R"({"type": "UnicodeScripts"})", " 1 ", {"1 "}},
      {R"({"type": "Digits", "individual_digits": true})",
       "a12½",
       {"a", "1", "2", "½"}},
      {R"({"type": "Digits", "individual_digits": false})",
       "a12½b",
       {"a", "12½", "b"}},
      {R"({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true})",
       "a é",
       {"Ġa", "ĠÃ©"}},
      {R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"})",
       "a b",
       {"_a", "_b"}},
      {R"({"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated"})",
       "abc",
       {"a", "b", "c"}},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(pieces(c.json, c.text), c.found) << c.json;
  }
}

TEST(PreTokenizer, EveryBehaviorWithEmptyMatches) {
  const struct {
    const char* behavior;
    bool invert;
    Strings found;
  } kCases[] = {
      {"Removed", false, {"a", "a", "c"}},
      {"Removed", true, {"b", "b"}},
      {"Isolated", false, {"a", "b", "b", "a", "c"}},
      {"MergedWithPrevious", false, {"ab", "b", "a", "c"}},
      {"MergedWithPrevious", true, {"a", "b", "ba", "c"}},
      {"MergedWithNext", false, {"a", "b", "ba", "c"}},
      {"MergedWithNext", true, {"ab", "b", "a", "c"}},
      {"Contiguous", false, {"a", "bb", "a", "c"}},
      {"Contiguous", true, {"a", "bb", "a", "c"}},
  };
  for (const auto& c : kCases) {
    const Json json = {
        {"type", "Split"},
        {"pattern", {{"Regex", "b|"}}},
        {"behavior", c.behavior},
        {"invert", c.invert}};
    EXPECT_EQ(pieces(json.dump(), "abbac"), c.found) << c.behavior << c.invert;
  }
}

TEST(PreTokenizer, SplitsBehindByteLevelSeeItsSpelling) {
  // As Falcon's: digits and threes of them behind ByteLevel.
  EXPECT_EQ(
      pieces(
          R"({"type": "Sequence", "pretokenizers": [
            {"type": "Punctuation", "behavior": "Contiguous"},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
            {"type": "Digits", "individual_digits": false},
            {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"},
             "behavior": "Isolated", "invert": false}]})",
          "a 12345!!"),
      (Strings{"a", "Ġ", "123", "45", "!!"}));
}

TEST(PreTokenizer, ChainsThatGrowWithoutMeasureEnd) {
  std::string steps;
  for (int i = 0; i < 40; ++i) {
    steps += std::string(i > 0 ? "," : "") +
        R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})";
  }
  test::expect_error(
      ErrorKind::Exhausted, {"[Tokenizer::encode]", "longer than"}, [&] {
        pieces(
            R"({"type": "Sequence", "pretokenizers": [)" + steps + "]}",
            "\xc3\xa9");
      });
}

} // namespace
} // namespace optiq::text
