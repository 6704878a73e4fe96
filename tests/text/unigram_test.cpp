#include <gtest/gtest.h>

#include "tokenizer_json_for_tests.h"

#include "optiq/base/error.h"
#include "optiq/text/tokenizer.h"

namespace optiq::text {
namespace {

using Ids = std::vector<std::int32_t>;

/** `pieces` are tokens and scores in the order of their ids; 0 is unknown. */
Json unigram_json(
    const std::vector<std::pair<std::string, double>>& pieces,
    bool byte_fallback = false) {
  Json vocab = Json::array();
  for (const auto& [text, score] : pieces) {
    vocab.push_back(Json::array({text, score}));
  }
  if (byte_fallback) {
    for (int byte = 0; byte < 256; ++byte) {
      vocab.push_back(Json::array({fmt::format("<0x{:02X}>", byte), 0.0}));
    }
  }
  return {
      {"model",
       {{"type", "Unigram"},
        {"unk_id", 0},
        {"byte_fallback", byte_fallback},
        {"vocab", vocab}}}};
}

Ids encode(const Json& json, std::string_view text) {
  return Tokenizer::parse(json.dump(), "t")->encode(text, false);
}

std::string message_of(const std::string& json) {
  try {
    Tokenizer::parse(json, "t");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Corrupt);
    return error.what();
  }
  return "";
}

TEST(Unigram, TakesTheBestSumNotTheLongestPiece) {
  const Json json = unigram_json(
      {{"<unk>", 0}, {"a", -2}, {"b", -2}, {"ab", -3}, {"abc", -9}, {"c", -3}});
  EXPECT_EQ(encode(json, "ab"), Ids({3}));
  EXPECT_EQ(encode(json, "abc"), Ids({3, 5})); // -6 beats -9
  EXPECT_EQ(encode(json, "ba"), Ids({2, 1}));
}

TEST(Unigram, OfEqualSumsTheFirstFoundStays) {
  // "ab"+"c" reaches the end before "a"+"bc" does.
  const Json json = unigram_json(
      {{"<unk>", 0}, {"a", -1}, {"bc", -1}, {"ab", -1}, {"c", -1}});
  EXPECT_EQ(encode(json, "abc"), Ids({1, 2}));
}

TEST(Unigram, ARunOfUnknownCharactersIsOneToken) {
  const Json json = unigram_json({{"<unk>", 0}, {"a", -1}});
  EXPECT_EQ(encode(json, "xyaéz"), Ids({0, 1, 0}));
  // The spelling of the unknown token is unknown too.
  EXPECT_EQ(encode(json, "x<unk>a"), Ids({0, 1}));
}

TEST(Unigram, UnknownCharactersCostTenMoreThanTheWorstPiece) {
  EXPECT_EQ(
      encode(unigram_json({{"<unk>", 0}, {"a", -1}, {"xa", -11.9}}), "xa"),
      Ids({2}));
  EXPECT_EQ(
      encode(
          unigram_json({{"<unk>", 0}, {"a", -1}, {"b", -1.5}, {"xa", -30}}),
          "xa"),
      Ids({3})); // the worst piece is the pair itself: -40 - 1
}

TEST(Unigram, FallsBackToBytesOnlyWhenAllAreThere) {
  Json json = unigram_json({{"<unk>", 0}, {"a", -1}}, true);
  EXPECT_EQ(encode(json, "aé"), Ids({1, 2 + 0xC3, 2 + 0xA9}));
  json["model"]["vocab"][2 + 0xA9] = Json::array({"other", 0.0});
  EXPECT_EQ(encode(json, "aé"), Ids({1, 0}));
}

TEST(Unigram, DecodesAsAnyOther) {
  Json json = unigram_json({{"<unk>", 0}, {"▁a", -1}, {"b", -1}});
  json["decoder"] = {{"type", "Metaspace"}, {"replacement", "▁"}};
  EXPECT_EQ(
      Tokenizer::parse(json.dump(), "t")->decode({1, 2, 1}, false), "ab a");
}

TEST(Unigram, RefusesBrokenVocabularies) {
  const std::string head = R"({"model":{"type":"Unigram","vocab":)";
  for (const auto& [vocab, expected] :
       std::initializer_list<std::pair<std::string, std::string>>{
           {R"([["a"]]}})", "vocab[0]: found an array without them"},
           {R"([["a",1],[2,"b"]]}})", "vocab[1]: found a number"},
           {R"([["a",1,2]]}})", "vocab[1]: found a number"},
           {R"([7]}})", "vocab[0]: found a number"},
           {R"([["a",1],["a",2]]}})", "found 'a' twice"},
           {R"({"a":1}}})", "expected an array of [token, score]"},
           {R"([["a",1]],"vocab":{"b":0}}})", "found twice"},
           {R"([["a",1]],"unk_id":1}})", "unk_id: found 1"}}) {
    const std::string message = message_of(head + vocab);
    EXPECT_NE(message.find(expected), std::string::npos) << message;
  }
  Json none = unigram_json({{"a", -1}});
  none["model"].erase("unk_id");
  EXPECT_THROW(encode(none, "b"), Error);
  EXPECT_THROW(
      encode(unigram_json({{std::string(2000, 'a'), -1}}), "a"), Error);
}

} // namespace
} // namespace optiq::text
