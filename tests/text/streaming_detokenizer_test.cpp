#include <gtest/gtest.h>

#include "tokenizer_json_for_tests.h"

#include "optiq/text/tokenizer.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {
namespace {

using Ids = std::vector<std::int32_t>;

std::shared_ptr<const Tokenizer> make(const Json& json) {
  return Tokenizer::parse(json.dump(), "t");
}

/** The concatenation, after checking that every part is whole characters. */
std::string stream(
    const std::shared_ptr<const Tokenizer>& tokenizer,
    const Ids& ids,
    bool skip) {
  StreamingDetokenizer detokenizer(tokenizer, skip);
  std::string text;
  for (const std::int32_t id : ids) {
    const std::string part = detokenizer.push(id);
    EXPECT_TRUE(is_valid_utf8(part));
    text += part;
  }
  return text + detokenizer.finish();
}

Json decoder_sequence(const Json& steps) {
  return {{"type", "Sequence"}, {"decoders", steps}};
}

TEST(StreamingDetokenizer, HoldsACharacterUntilItIsWhole) {
  const auto tokenizer = make(byte_level_json({}));
  StreamingDetokenizer detokenizer(tokenizer, false);
  EXPECT_EQ(detokenizer.push(' '), " "); // the first one too
  EXPECT_EQ(detokenizer.push(0), std::string(1, '\0'));
  EXPECT_EQ(detokenizer.push(0xF0), "");
  EXPECT_EQ(detokenizer.push(0x9F), "");
  EXPECT_EQ(detokenizer.push(0x98), "");
  EXPECT_EQ(detokenizer.push(0x80), "😀");
  EXPECT_EQ(detokenizer.push(0xE2), "");
  EXPECT_EQ(detokenizer.push('x'), "\uFFFDx");
  EXPECT_EQ(detokenizer.push(0xE2), "");
  EXPECT_EQ(detokenizer.finish(), "\uFFFD");
}

TEST(StreamingDetokenizer, StripsTheEndsOfTheWholeText) {
  Json json = byte_fallback_json();
  Json& steps = json["decoder"]["decoders"];
  steps.push_back(
      {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 1}});
  const auto tokenizer = make(json);
  StreamingDetokenizer detokenizer(tokenizer, false);
  EXPECT_EQ(detokenizer.push(1), "");
  EXPECT_EQ(detokenizer.push(1), ""); // might be the last
  EXPECT_EQ(detokenizer.push(2), " a");
  EXPECT_EQ(detokenizer.push(1), "");
  EXPECT_EQ(detokenizer.push(1), " ");
  EXPECT_EQ(detokenizer.finish(), "");
  EXPECT_EQ(tokenizer->decode({1, 1, 2, 1, 1}, false), " a ");
}

TEST(StreamingDetokenizer, MetaspaceAndNoDecoder) {
  Json json = byte_fallback_json();
  json["decoder"] = {{"type", "Metaspace"}, {"replacement", "▁"}};
  EXPECT_EQ(make(json)->decode({1, 2, 1, 3}, false), "a b");
  json["decoder"] = nullptr;
  EXPECT_EQ(make(json)->decode({2, 3}, false), "a b");
}

/** Decodes tokens that stand for themselves. */
std::string decode_tokens(
    const Json& decoder,
    const std::vector<std::string>& tokens) {
  Json json = {
      {"decoder", decoder},
      {"model",
       {{"type", "BPE"}, {"vocab", {{"u", 0}}}, {"merges", Json::array()}}}};
  Ids ids;
  for (const std::string& token : tokens) {
    Json& vocab = json["model"]["vocab"];
    if (!vocab.contains(token)) {
      const auto id = vocab.size();
      vocab[token] = id;
    }
    ids.push_back(vocab[token].get<std::int32_t>());
  }
  const auto tokenizer = make(json);
  std::string text = tokenizer->decode(ids, false);
  EXPECT_EQ(stream(tokenizer, ids, false), text);
  return text;
}

// The values of these are those of PyPI's tokenizers.
TEST(StreamingDetokenizer, WordPieceJoinsAndCleansUp) {
  Json decoder = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  EXPECT_EQ(
      decode_tokens(decoder, {"##un", "##ing", "do", "not", "x", "."}),
      "##uning do not x.");
  EXPECT_EQ(decode_tokens(decoder, {"a", " do not"}), "a  don't");
  decoder["cleanup"] = false;
  EXPECT_EQ(decode_tokens(decoder, {"a", "."}), "a .");
}

TEST(StreamingDetokenizer, WordEndsAreSpacesButAtTheEnd) {
  const Json decoder = {{"type", "BPEDecoder"}, {"suffix", "</w>"}};
  EXPECT_EQ(decode_tokens(decoder, {"lo", "w</w>", "x</w>"}), "low x");
  EXPECT_EQ(decode_tokens(decoder, {}), "");
}

TEST(StreamingDetokenizer, CtcDropsRepeatsAndPads) {
  const Json decoder = {
      {"type", "CTC"},
      {"pad_token", "<pad>"},
      {"word_delimiter_token", "|"},
      {"cleanup", true}};
  EXPECT_EQ(
      decode_tokens(decoder, {"a", "a", "<pad>", "a", "|", "|", "b"}), "aa b");
}

TEST(StreamingDetokenizer, AfterFuseTheTextIsOneToken) {
  const auto after_fuse = [](const Json& step) {
    return decoder_sequence({{{"type", "Fuse"}}, step});
  };
  EXPECT_EQ(
      decode_tokens(after_fuse({{"type", "ByteFallback"}}), {"<0x", "41>"}),
      "A");
  EXPECT_EQ(
      decode_tokens(after_fuse({{"type", "ByteFallback"}}), {"<0x41>", "b"}),
      "<0x41>b");
  EXPECT_EQ(
      decode_tokens(
          after_fuse({{"type", "Metaspace"}, {"replacement", "▁"}}),
          {"▁a", "▁b"}),
      "ab");
  EXPECT_EQ(
      decode_tokens(
          after_fuse({{"type", "BPEDecoder"}, {"suffix", "</w>"}}),
          {"a</", "w>b</w>"}),
      "ab");
  EXPECT_EQ(
      decode_tokens(
          after_fuse(
              {{"type", "Replace"},
               {"pattern", {{"String", "aa"}}},
               {"content", "x"}}),
          {"a", "aa", "ab"}),
      "xxb");
  EXPECT_EQ(
      decode_tokens(
          after_fuse(
              {{"type", "Replace"},
               {"pattern", {{"Regex", "[ab]+"}}},
               {"content", "_"}}),
          {"a", "b", "c"}),
      "_c");
}

TEST(StreamingDetokenizer, ByteLevelTokensAreBytesWhateverTheDecoder) {
  Json json = byte_level_json({"\u0120 a"});
  json["decoder"] = byte_fallback_json()["decoder"];
  json["decoder"]["decoders"].push_back(
      {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  const auto tokenizer = make(json);
  const Ids ids = {256, 0xC3, 0xA9, '\n'};
  EXPECT_EQ(tokenizer->decode(ids, false), " aé\n");
  EXPECT_EQ(stream(tokenizer, ids, false), " aé\n");
  EXPECT_EQ(tokenizer->token_bytes(256), " a");
}

TEST(StreamingDetokenizer, EqualsDecodeForRandomIds) {
  Json byte_level = byte_level_json({"\u0120 a", "\u00e2 \u0124"});
  byte_level["added_tokens"] = {
      added_token(258, "<s>", {"special"}), added_token(259, "two words")};
  Json metaspace = byte_fallback_json();
  metaspace["decoder"] = {{"type", "Metaspace"}, {"replacement", "▁"}};
  Json stripped = byte_fallback_json();
  stripped["decoder"]["decoders"].push_back(
      {{"type", "Strip"}, {"content", " "}, {"start", 2}, {"stop", 2}});
  Json tokens_stripped = byte_fallback_json();
  tokens_stripped["decoder"] = decoder_sequence(
      {{{"type", "Strip"}, {"content", "a"}, {"start", 1}, {"stop", 0}},
       {{"type", "ByteFallback"}}});
  Json none = byte_fallback_json();
  none["decoder"] = nullptr;
  std::uint32_t state = 1;
  for (const Json& json :
       {byte_level,
        byte_fallback_json(),
        metaspace,
        stripped,
        tokens_stripped,
        none}) {
    const auto tokenizer = make(json);
    for (int round = 0; round < 2000; ++round) {
      Ids ids;
      for (int i = 0; i < round % 12; ++i) {
        state = state * 1664525 + 1013904223;
        // Half of the ids from the few first ones, some out of range.
        ids.push_back(static_cast<std::int32_t>(
            (state >> 9) % (state >> 31 != 0 ? 6 : 264)));
      }
      EXPECT_EQ(stream(tokenizer, ids, false), tokenizer->decode(ids, false));
      EXPECT_EQ(stream(tokenizer, ids, true), tokenizer->decode(ids, true));
    }
  }
}

} // namespace
} // namespace optiq::text
