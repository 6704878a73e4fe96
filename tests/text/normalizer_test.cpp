#include <ctime>

#include <gtest/gtest.h>

#include "optiq/text/normalizer_impl.h"

namespace optiq::text {
namespace {

TEST(Normalizer, FormC) {
  const struct {
    const char* text;
    const char* expected;
  } kCases[] = {
      {"", ""},
      {"plain", "plain"},
      {"e\u0301", "\u00e9"},
      {"xe\u0301y e\u0301", "x\u00e9y \u00e9"},
      {"\u0301", "\u0301"}, // nothing before it
      {"\u212b", "\u00c5"}, // ANGSTROM SIGN
      {"a\u0323\u0307", "\u1ea1\u0307"},
      {"a\u0307\u0323", "\u1ea1\u0307"}, // sorted first
      {"q\u0307\u0323", "q\u0323\u0307"},
      {"q\u0323\u0307", "q\u0323\u0307"},
      {"\u0958", "\u0915\u093c"}, // excluded from composition
      {"\u1100\u1161\u11a8", "\uac01"},
      {"\uac00\u11a8", "\uac01"},
      {"\u0344", "\u0308\u0301"},
      // Unicode 13.0 and 16.0 characters: older form C leaves them alone.
      {"\U00011935\U00011930", "\U00011935\U00011930"},
      {"\U000105d2\u0307", "\U000105d2\u0307"},
      {"q\u1ac1\u0334", "q\u1ac1\u0334"},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(normalize_nfc(c.text), c.expected) << c.text;
  }
}

TEST(Normalizer, AMegabyteOfUnsortedMarksIsNotQuadratic) {
  std::string text = "q";
  std::string below;
  std::string above;
  for (int i = 0; i < 250'000; ++i) {
    text += "\u0307\u0323"; // combining classes 230, 220
    below += "\u0323";
    above += "\u0307";
  }
  const std::clock_t begin = std::clock();
  EXPECT_TRUE(normalize_nfc(text) == "q" + below + above);
  // 250,000 squared swaps would take minutes; sorting takes milliseconds.
  EXPECT_LT(std::clock() - begin, 5 * CLOCKS_PER_SEC);
}

TEST(Normalizer, ReplacesFromTheLeftWithoutOverlap) {
  EXPECT_EQ(replace_all("aaa", "aa", "b"), "ba");
  EXPECT_EQ(replace_all("", "a", "b"), "");
  EXPECT_EQ(replace_all("a b ", " ", "▁"), "a▁b▁");
}

std::string normalized(const artifacts::Json& json, std::string_view text) {
  PatternRun run(text.size());
  return Normalizer::parse(JsonField(json, "t")).apply(text, run);
}

TEST(Normalizer, StepsInOrder) {
  const artifacts::Json json = {
      {"type", "Sequence"},
      {"normalizers",
       {{{"type", "Prepend"}, {"prepend", " "}},
        {{"type", "Replace"},
         {"pattern", {{"String", " "}}},
         {"content", "▁"}}}}};
  EXPECT_EQ(normalized(json, "a b"), "▁a▁b");
  EXPECT_EQ(normalized(json, ""), ""); // nothing to put a prefix to
}

TEST(Normalizer, EveryType) {
  const struct {
    const char* json;
    const char* text;
    const char* expected;
  } kCases[] = {
      {R"({"type": "NFD"})", "\u00e9", "e\u0301"},
      {R"({"type": "NFKC"})", "ﬁ e\u0301", "fi \u00e9"},
      {R"({"type": "NFKD"})", "①\u00e9", "1e\u0301"},
      {R"({"type": "NFKC"})", "㋿", "㋿"}, // younger than Unicode 9.0
      {R"({"type": "Lowercase"})", "AbİΣẞ", "abi\u0307σß"},
      {R"({"type": "Strip", "strip_left": true, "strip_right": false})",
       "\u3000 a ",
       "a "},
      {R"({"type": "Strip", "strip_left": true, "strip_right": true})",
       " \t ",
       ""},
      {R"({"type": "StripAccents"})", "e\u0301\u00e9", "e\u00e9"},
      {R"({"type": "Nmt"})", "a\u200bb\u0001c", "a bc"},
      {R"({"type": "ByteLevel"})", "a é", "aĠÃ©"},
      {R"({"type": "BertNormalizer", "clean_text": true,
           "handle_chinese_chars": true, "strip_accents": null,
           "lowercase": true})",
       "\u00c9\t漢\u200b!",
       "e  漢 !"},
      {R"({"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": "_"})",
       "a  b c",
       "a_b_c"},
      {R"({"type": "Replace", "pattern": {"String": ""}, "content": "-"})",
       "ab",
       "-a-b-"},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(normalized(artifacts::Json::parse(c.json), c.text), c.expected)
        << c.json;
  }
}

} // namespace
} // namespace optiq::text
