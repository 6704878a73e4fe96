#include "optiq/text/tokenizer.h"

#include <ctime>
#include <tuple>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "tokenizer_json_for_tests.h"

#include "optiq/base/error.h"

namespace optiq::text {
namespace {

using Ids = std::vector<std::int32_t>;

std::shared_ptr<const Tokenizer> make(const Json& json) {
  return Tokenizer::parse(json.dump(), "tokenizer.json");
}

Ids bytes(std::string_view text) {
  Ids ids;
  for (const char c : text) {
    ids.push_back(static_cast<unsigned char>(c));
  }
  return ids;
}

TEST(Tokenizer, MergesByRankThenFromTheLeft) {
  // Tokens 256 "bc", 257 "ab", 258 "aa".
  const auto tokenizer = make(byte_level_json({"b c", "a b", "a a"}));
  EXPECT_EQ(tokenizer->encode("abc", false), (Ids{'a', 256}));
  EXPECT_EQ(tokenizer->encode("ab", false), (Ids{257}));
  EXPECT_EQ(tokenizer->encode("aaa", false), (Ids{258, 'a'}));
  EXPECT_EQ(tokenizer->encode("aaab", false), (Ids{258, 257}));
  EXPECT_EQ(tokenizer->encode("", false), Ids{});
  EXPECT_EQ(tokenizer->vocab_size(), 259);
  EXPECT_EQ(tokenizer->token_to_id("bc"), 256);
  EXPECT_EQ(tokenizer->token_to_id("cb"), std::nullopt);
}

TEST(Tokenizer, TheHeapOfLongWordsMergesAsTheScanOfShortOnes) {
  const std::vector<std::string> merges = {
      "a b", "b a", "ab ab", "a a", "aa b", "b b", "abab a", "bb aa"};
  const auto tokenizer = make(byte_level_json(merges));
  // The oracle: apply the first rule that applies anywhere, leftmost, and
  // begin again.
  const auto slow = [&](const std::string& word) {
    std::vector<std::string> parts;
    for (const char c : word) {
      parts.emplace_back(1, c);
    }
    for (std::size_t rule = 0; rule < merges.size();) {
      bool merged = false;
      for (std::size_t i = 0; i + 1 < parts.size() && !merged; ++i) {
        if (parts[i] + " " + parts[i + 1] == merges[rule]) {
          parts[i] += parts[i + 1];
          parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(i) + 1);
          merged = true;
        }
      }
      rule = merged ? 0 : rule + 1;
    }
    Ids ids;
    for (const std::string& part : parts) {
      ids.push_back(*tokenizer->token_to_id(part));
    }
    return ids;
  };
  std::uint32_t state = 1;
  for (std::size_t length = 1; length <= 120; ++length) {
    std::string word;
    for (std::size_t i = 0; i < length; ++i) {
      state = state * 1664525 + 1013904223;
      word += (state >> 24) % 5 < 3 ? 'a' : 'b';
    }
    EXPECT_EQ(tokenizer->encode(word, false), slow(word)) << word;
  }
}

TEST(Tokenizer, AMegabyteOfOneWordIsNotQuadratic) {
  const auto tokenizer = make(byte_level_json({"a a", "aa aa", "aaaa aaaa"}));
  const std::clock_t begin = std::clock();
  const Ids ids = tokenizer->encode(std::string(1u << 20, 'a'), false);
  EXPECT_EQ(ids, Ids((1u << 20) / 8, 258));
  // 10^12 steps if every merge scanned the word; about 10^7 with the heap.
  EXPECT_LT(std::clock() - begin, 10 * CLOCKS_PER_SEC);
}

TEST(Tokenizer, InvalidBytesBecomeReplacementCharacters) {
  const auto tokenizer = make(byte_level_json({}));
  EXPECT_EQ(tokenizer->encode("a\xE2\x82z", false), bytes("a\xEF\xBF\xBDz"));
  EXPECT_EQ(tokenizer->encode("e\xCC\x81", false), bytes("\xC3\xA9")); // NFC
}

TEST(Tokenizer, AddedTokensAreLeftmostLongest) {
  Json json = byte_level_json({});
  json["added_tokens"] = {
      added_token(256, "<a"),
      added_token(257, "<ab>"),
      added_token(258, "b>c"),
      added_token(259, "<s>", {"special"})};
  const auto tokenizer = make(json);
  EXPECT_EQ(tokenizer->encode("<ab>", false), (Ids{257}));
  EXPECT_EQ(tokenizer->encode("<ab", false), (Ids{256, 'b'}));
  EXPECT_EQ(tokenizer->encode("<ab>c", false), (Ids{257, 'c'}));
  EXPECT_EQ(tokenizer->encode("<<ab>c", false), (Ids{'<', 257, 'c'}));
  EXPECT_EQ(tokenizer->encode("<ab<s>", false), (Ids{256, 'b', 259}));
  EXPECT_EQ(tokenizer->encode("<s><s>", false), (Ids{259, 259}));
  EXPECT_EQ(tokenizer->token_to_id("<ab>"), 257);
  EXPECT_TRUE(tokenizer->is_special(259));
  EXPECT_FALSE(tokenizer->is_special(257));
  EXPECT_FALSE(tokenizer->is_special(-1));
  EXPECT_EQ(tokenizer->decode({'x', 259, 257}, false), "x<s><ab>");
  EXPECT_EQ(tokenizer->decode({'x', 259, 257}, true), "x<ab>");
}

TEST(Tokenizer, FlagsOfAddedTokens) {
  Json json = byte_level_json({});
  json["added_tokens"] = {
      added_token(256, "<l>", {"lstrip"}),
      added_token(257, "<r>", {"rstrip"}),
      added_token(258, "word", {"single_word"}),
      added_token(259, "caf\u00e9", {"normalized"}),
      added_token(260, "raw\u00e9")};
  const auto tokenizer = make(json);
  EXPECT_EQ(tokenizer->encode("a \n<l> b", false), (Ids{'a', 256, ' ', 'b'}));
  EXPECT_EQ(
      tokenizer->encode("a <r> \u3000b", false), (Ids{'a', ' ', 257, 'b'}));
  EXPECT_EQ(tokenizer->encode("<r>  <l>", false), (Ids{257, 256}));
  EXPECT_EQ(tokenizer->encode("(word)", false), (Ids{'(', 258, ')'}));
  EXPECT_EQ(tokenizer->encode("words", false), bytes("words"));
  EXPECT_EQ(tokenizer->encode("\u00e9word", false), bytes("\u00e9word"));
  EXPECT_EQ(tokenizer->encode("cafe\u0301", false), (Ids{259}));
  EXPECT_EQ(tokenizer->encode("raw\u00e9", false), (Ids{260}));
  EXPECT_EQ(tokenizer->encode("rawe\u0301", false), bytes("raw\u00e9"));
}

TEST(Tokenizer, AddedTokensAreNumberedByTheirOrder) {
  Json json = byte_level_json({});
  json["added_tokens"] = {
      added_token(300, "<x>"), // a gap
      added_token(301, ""), // skipped
      added_token(302, "<y>"),
      added_token(98, "a"), // has an id in the vocabulary
      added_token(303, "<x>", {"rstrip"})}; // again, now with a flag
  const auto tokenizer = make(json);
  EXPECT_EQ(tokenizer->encode("<y><x> <y>a", false), (Ids{257, 256, 257, 'a'}));
  EXPECT_EQ(tokenizer->vocab_size(), 258);
  EXPECT_EQ(tokenizer->decode({256, 257}, false), "<x><y>");
}

TEST(Tokenizer, BertPutsTokensAround) {
  Json json = byte_level_json({});
  json["post_processor"] = {
      {"type", "BertProcessing"}, {"cls", {"a", 97}}, {"sep", {"b", 98}}};
  EXPECT_EQ(make(json)->encode("x", true), (Ids{'a', 'x', 'b'}));
  EXPECT_EQ(make(json)->encode("x", false), (Ids{'x'}));
}

TEST(Tokenizer, TemplatePutsTokensAround) {
  Json json = byte_level_json({});
  json["added_tokens"] = {added_token(256, "<s>", {"special"})};
  json["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
        {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
        {{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}}}},
      {"special_tokens",
       {{"<s>", {{"ids", {256}}}}, {"</s>", {{"ids", {1, 2}}}}}}};
  const auto tokenizer = make(json);
  EXPECT_EQ(tokenizer->encode("a", true), (Ids{256, 'a', 1, 2}));
  EXPECT_EQ(tokenizer->encode("", true), (Ids{256, 1, 2}));
  EXPECT_EQ(tokenizer->encode("a", false), (Ids{'a'}));
}

TEST(Tokenizer, IgnoreMergesTakesWholeWords) {
  Json json = byte_level_json({"a b"});
  json["model"]["vocab"]["\u0120xyz"] = 257; // " xyz", which no merge makes
  EXPECT_EQ(make(json)->encode(" xyz", false), bytes(" xyz"));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(make(json)->encode(" xyz", false), (Ids{257}));
}

TEST(Tokenizer, ByteFallback) {
  const auto tokenizer = make(byte_fallback_json());
  EXPECT_EQ(tokenizer->encode("ab a", false), (Ids{4, 1, 2}));
  EXPECT_EQ(tokenizer->encode("\u00e9", false), (Ids{5 + 0xC3, 5 + 0xA9}));
  EXPECT_EQ(
      tokenizer->decode({4, 1, 5 + 0xC3, 5 + 0xA9, 2}, false), "ab \u00e9a");
  // One bad byte spoils its run, as in the original.
  EXPECT_EQ(
      tokenizer->decode({5 + 0xC3, 5 + 0xA9, 5 + 0xFF}, false),
      "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(tokenizer->token_bytes(5 + 0xC3), "\xC3");
  EXPECT_EQ(tokenizer->token_bytes(1), " ");
}

TEST(Tokenizer, UnknownCharacters) {
  Json json = byte_fallback_json();
  json["model"]["byte_fallback"] = false;
  EXPECT_EQ(make(json)->encode("axyb", false), (Ids{2, 0, 3}));
  json["model"]["fuse_unk"] = false;
  EXPECT_EQ(make(json)->encode("axyb", false), (Ids{2, 0, 0, 3}));
  json["model"]["unk_token"] = "<none>";
  EXPECT_EQ(make(json)->encode("ab", false), (Ids{4}));
  EXPECT_THROW(make(json)->encode("x", false), Error);
}

TEST(Tokenizer, MarkedPieces) {
  const Json model = Json::parse(R"({"type": "BPE", "unk_token": "?",
    "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>",
    "vocab": {"?": 0, "a": 1, "##b": 2, "##b</w>": 3, "ab</w>": 4, "a</w>": 5},
    "merges": ["a ##b</w>"]})");
  const auto tokenizer = make({{"model", model}});
  EXPECT_EQ(tokenizer->encode("ab", false), (Ids{4}));
  EXPECT_EQ(tokenizer->encode("abb", false), (Ids{1, 2, 3}));
  EXPECT_EQ(tokenizer->encode("a", false), (Ids{5}));
  EXPECT_EQ(tokenizer->encode("ac", false), (Ids{1, 0}));
}

TEST(Tokenizer, WordPieceAndWordLevel) {
  Json model = Json::parse(R"({"type": "WordPiece", "unk_token": "?",
    "continuing_subword_prefix": "##", "max_input_chars_per_word": 5,
    "vocab": {"?": 0, "un": 1, "##aff": 2, "##able": 3, "##a": 4, "u": 5}})");
  const auto pieces = make({{"model", model}});
  EXPECT_EQ(pieces->encode("unaff", false), (Ids{1, 2}));
  EXPECT_EQ(pieces->encode("una", false), (Ids{1, 4}));
  EXPECT_EQ(pieces->encode("unb", false), (Ids{0})); // as a whole
  EXPECT_EQ(pieces->encode("unaffa", false), (Ids{0})); // six characters
  model["type"] = "WordLevel";
  const auto words = make({{"model", model}});
  EXPECT_EQ(words->encode("un", false), (Ids{1}));
  EXPECT_EQ(words->encode("unx", false), (Ids{0}));
  model["unk_token"] = "none";
  EXPECT_THROW(make({{"model", model}})->encode("unx", false), Error);
}

TEST(Tokenizer, SplitsBehindByteLevel) {
  Json json = byte_level_json({"1 2"});
  const Json spaces = {
      {"type", "Split"},
      {"pattern", {{"String", "\u0120"}}}, // as ByteLevel spells it
      {"behavior", "Removed"},
      {"invert", false}};
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers", Json::array({byte_level_part(), spaces})}};
  EXPECT_EQ(
      make(json)->encode("a 12 \u00e9", false), (Ids{'a', 256, 0xC3, 0xA9}));
}

TEST(Tokenizer, TokenBytes) {
  const auto tokenizer = make(byte_level_json({"\u0120 a"}));
  EXPECT_EQ(tokenizer->token_bytes(0), std::string(1, '\0'));
  EXPECT_EQ(tokenizer->token_bytes(0xE2), "\xE2");
  EXPECT_EQ(tokenizer->token_bytes(256), " a");
  EXPECT_EQ(tokenizer->token_bytes(257), "");
  EXPECT_EQ(tokenizer->token_bytes(-1), "");
}

struct BadField {
  const char* pointer; // where to put the value
  Json value;
  ErrorKind kind;
  const char* named; // what the message must name
};

TEST(Tokenizer, EveryBadFieldIsNamed) {
  const Json number = 7;
  const BadField kCases[] = {
      {"/model", number, ErrorKind::Corrupt, "tokenizer.json.model"},
      {"/model/type", "Lattice", ErrorKind::Unsupported, "Lattice"},
      {"/model/vocab", number, ErrorKind::Corrupt, "model.vocab"},
      {"/model/vocab/b", "x", ErrorKind::Corrupt, "model.vocab"},
      {"/model/vocab/b", -1, ErrorKind::Corrupt, "model.vocab"},
      {"/model/vocab/b", 1.5, ErrorKind::Corrupt, "model.vocab"},
      {"/model/vocab/b", 97, ErrorKind::Corrupt, "id 97 twice"},
      {"/model/vocab/b", 4u << 20, ErrorKind::Corrupt, "id 4194304"},
      {"/model/vocab/b", 1ull << 40, ErrorKind::Corrupt, "model.vocab"},
      {"/model/vocab/b", Json::array(), ErrorKind::Corrupt, "model.vocab"},
      {"/model/merges", number, ErrorKind::Corrupt, "model.merges"},
      {"/model/merges", Json::array({"ab"}), ErrorKind::Corrupt, "merges[0]"},
      {"/model/merges",
       Json::array({"a b c"}),
       ErrorKind::Corrupt,
       "merges[0]"},
      {"/model/merges", Json::array({7}), ErrorKind::Corrupt, "merges[0]"},
      {"/model/merges",
       Json::array({Json::array({"a"})}),
       ErrorKind::Corrupt,
       "merges[0]"},
      {"/model/merges",
       Json::array({Json::array({"a", 1})}),
       ErrorKind::Corrupt,
       "merges[0]"},
      {"/model/merges", Json::array({"a c"}), ErrorKind::Corrupt, "'ac'"},
      {"/model/merges",
       Json::array({"a \u4e00"}),
       ErrorKind::Corrupt,
       "merges[0]"},
      {"/model/dropout", 0.1, ErrorKind::Unsupported, "model.dropout"},
      {"/model/end_of_word_suffix", 7, ErrorKind::Corrupt, "suffix"},
      {"/model/type", "WordPiece", ErrorKind::Corrupt, "model.unk_token"},
      {"/model/fuse_unk", "yes", ErrorKind::Corrupt, "model.fuse_unk"},
      {"/model/unk_token", number, ErrorKind::Corrupt, "model.unk_token"},
      {"/normalizer", number, ErrorKind::Corrupt, "normalizer"},
      {"/normalizer/type", "NFX", ErrorKind::Unsupported, "NFX"},
      {"/normalizer/type", "Replace", ErrorKind::Corrupt, "normalizer.pattern"},
      {"/pre_tokenizer/type", "Words", ErrorKind::Unsupported, "Words"},
      {"/pre_tokenizer/pretokenizers/0/behavior",
       "x",
       ErrorKind::Corrupt,
       "pretokenizers[0].behavior"},
      {"/pre_tokenizer/pretokenizers/0/pattern",
       {{"Regex", "\\X"}},
       ErrorKind::Unsupported,
       "pretokenizers[0].pattern.Regex"},
      {"/pre_tokenizer/pretokenizers/0/pattern",
       {{"Regex", "(a"}},
       ErrorKind::Corrupt,
       "pretokenizers[0].pattern.Regex"},
      {"/post_processor",
       {{"type", "BertProcessing"}, {"cls", {"x", 1}}, {"sep", {"y"}}},
       ErrorKind::Corrupt,
       "post_processor.sep"},
      {"/post_processor",
       {{"type", "TemplateProcessing"}, {"single", Json::array()}},
       ErrorKind::Corrupt,
       "post_processor.single"},
      {"/post_processor",
       Json::parse(R"({"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "<x>"}}, {"Sequence": {"id": "A"}}],
         "special_tokens": {"<x>": {"ids": [257]}}})"),
       ErrorKind::Corrupt,
       "special_tokens.<x>.ids[0]: found 257, expected a whole number from 0 to "
       "256"},
      {"/decoder/type", "Reverse", ErrorKind::Unsupported, "Reverse"},
      {"/decoder",
       {{"type", "Strip"}, {"content", "ab"}},
       ErrorKind::Corrupt,
       "decoder.content"},
      {"/added_tokens", number, ErrorKind::Corrupt, "added_tokens"},
      {"/added_tokens/0", number, ErrorKind::Corrupt, "added_tokens[0]"},
      {"/added_tokens/0/content",
       number,
       ErrorKind::Corrupt,
       "added_tokens[0].content"},
  };
  for (const BadField& c : kCases) {
    Json json = byte_level_json({});
    json["added_tokens"] = {added_token(256, "<x>")};
    json[Json::json_pointer(c.pointer)] = c.value;
    try {
      make(json);
      ADD_FAILURE() << "accepted " << c.pointer << " = " << c.value;
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_EQ(error.kind(), c.kind) << message;
      EXPECT_NE(message.find(c.named), std::string::npos) << message;
      EXPECT_EQ(message.find("[Tokenizer::parse] tokenizer.json"), 0u)
          << message;
    }
  }
}

/** A Sequence of n times the same step. */
Json chain(const char* list, const Json& step, int n) {
  return {
      {"type", "Sequence"},
      {list, std::vector<Json>(static_cast<std::size_t>(n), step)}};
}

// Small files that would ask for a stack or a memory without end.
TEST(Tokenizer, RefusesChainsWithoutMeasure) {
  const Json doubling = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  const Json fuse = {{"type", "Fuse"}};
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  Json frame = Json::parse(R"({"type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A"}}], "special_tokens": {"x": {}}})");
  frame["special_tokens"]["x"]["ids"] = std::vector<int>(64, 1);
  frame["single"].insert(
      frame["single"].end(), 65, Json{{"SpecialToken", {{"id", "x"}}}});
  const std::tuple<const char*, Json, const char*> kCases[] = {
      {"normalizer", chain("normalizers", doubling, 13), "4096 times"},
      {"normalizer", chain("normalizers", {{"type", "NFC"}}, 256), "256 steps"},
      {"pre_tokenizer", chain("pretokenizers", digits, 256), "256 steps"},
      {"decoder", chain("decoders", doubling, 13), "4096 times"},
      {"decoder", chain("decoders", fuse, 200'000), "256 steps"},
      {"post_processor", frame, "more than 4096 tokens"},
      {"post_processor",
       {{"type", "Sequence"}, {"processors", {frame}}},
       "more than 4096 tokens"}};
  for (const auto& [key, value, named] : kCases) {
    Json json = byte_level_json({});
    json[key] = value;
    test::expect_error(
        ErrorKind::Unsupported, {key, named}, [&] { make(json); });
  }
  Json json = byte_level_json({});
  json["normalizer"] = chain("normalizers", doubling, 12);
  EXPECT_EQ(make(json)->encode("a", false).size(), 4096u);
}

TEST(Tokenizer, BrokenFiles) {
  const std::string whole = byte_level_json({"a b"}).dump();
  for (const std::size_t size :
       {std::size_t{0}, whole.size() / 2, whole.size() - 1}) {
    EXPECT_THROW(Tokenizer::parse(whole.substr(0, size), "t"), Error) << size;
  }
  EXPECT_THROW(Tokenizer::parse("7", "t"), Error);
  EXPECT_THROW(Tokenizer::parse(std::string(100'000, '['), "t"), Error);
  EXPECT_THROW(
      Tokenizer::parse(R"({"model":{"vocab":{"a":0,"a":1},"merges":[]}})", "t"),
      Error);
}

} // namespace
} // namespace optiq::text
