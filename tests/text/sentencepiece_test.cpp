#include <limits>

#include <gtest/gtest.h>

#include "sentencepiece_for_tests.h"

#include "optiq/base/error.h"
#include "optiq/text/tokenizer.h"

namespace optiq::text {
namespace {

using Ids = std::vector<std::int32_t>;
using Kind = SentencePieceModel::Kind;
using Type = SentencePiece::Type;

// NormalizerSpec: what Llama's models say.
const std::string kKeepsSpaces = proto_bytes(3, proto_number(4, 0));

std::shared_ptr<const Tokenizer> make(
    const std::string& model,
    const std::optional<std::string>& config = std::nullopt) {
  return Tokenizer::parse_sentencepiece(model, config, "m");
}

Ids encode(const std::string& model, std::string_view text) {
  return make(model)->encode(text, true);
}

std::string message_of(
    const std::string& model,
    ErrorKind kind = ErrorKind::Corrupt,
    const std::optional<std::string>& config = std::nullopt) {
  try {
    make(model, config);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "accepted";
}

std::vector<TestPiece> merging_pieces() {
  return {
      {"▁", -9},
      {"a", -9},
      {"b", -9},
      {"c", -9}, // 3 to 6
      {"ab", -2},
      {"bc", -1},
      {"▁a", -3},
      {"abc", -4}, // 7 to 10
  };
}

TEST(SentencePiece, MergesTheHighestScoreFirst) {
  const std::string model = sentencepiece_model(Kind::Bpe, merging_pieces());
  EXPECT_EQ(encode(model, "ab"), Ids({3, 7}));
  EXPECT_EQ(encode(model, "abc"), Ids({9, 8})); // bc, then _a; no _abc
  EXPECT_EQ(encode(model, "cabc"), Ids({3, 6, 10}));
  EXPECT_EQ(encode(model, "xya"), Ids({3, 0, 4})); // a run is one unknown
}

TEST(SentencePiece, OfEqualScoresTheLeftmostMerges) {
  const std::vector<TestPiece> pieces = {
      {"▁", -9}, {"a", -9}, {"b", -9}, {"c", -9}, {"bc", -1}, {"ab", -1}};
  EXPECT_EQ(
      encode(sentencepiece_model(Kind::Bpe, pieces), "abc"), Ids({3, 8, 6}));
}

TEST(SentencePiece, CharactersThatAreNoPieceMerge) {
  const std::vector<TestPiece> pieces = {{"▁", -9}, {"tt", -1}};
  EXPECT_EQ(
      encode(sentencepiece_model(Kind::Bpe, pieces), "tttt"), Ids({3, 4, 4}));
}

TEST(SentencePiece, UserDefinedPiecesAreNeitherCutNorMerged) {
  std::vector<TestPiece> pieces = merging_pieces();
  pieces.push_back({"bx", 0, Type::UserDefined}); // 11
  pieces.push_back({"x", -9}); // 12
  pieces.push_back({"xc", -1}); // 13
  for (const Kind kind : {Kind::Bpe, Kind::Unigram}) {
    const std::string model = sentencepiece_model(kind, pieces);
    EXPECT_EQ(encode(model, "abxc"), Ids({9, 11, 6}));
  }
}

TEST(SentencePiece, UnusedPiecesBecomeWhatTheyWereMergedFrom) {
  std::vector<TestPiece> pieces = merging_pieces();
  pieces[5].type = Type::Unused; // bc
  EXPECT_EQ(
      encode(sentencepiece_model(Kind::Bpe, pieces), "bc"), Ids({3, 5, 6}));
  EXPECT_EQ(
      encode(sentencepiece_model(Kind::Bpe, pieces), "cabc"),
      Ids({3, 6, 10})); // a piece made of it stays
  EXPECT_EQ(
      encode(sentencepiece_model(Kind::Unigram, pieces), "cbc"),
      Ids({3, 6, 5, 6}));
}

TEST(SentencePiece, ModelsOfCharactersMergeNothing) {
  EXPECT_EQ(
      encode(sentencepiece_model(Kind::Char, merging_pieces()), "ab"),
      Ids({3, 4, 5}));
  EXPECT_NE(
      message_of(
          sentencepiece_model(Kind::Word, merging_pieces()),
          ErrorKind::Unsupported)
          .find("a model of words"),
      std::string::npos);
}

TEST(SentencePiece, NormalizesSpacesAsTheModelSays) {
  const auto pieces = merging_pieces();
  const std::string removing = sentencepiece_model(Kind::Char, pieces);
  EXPECT_EQ(encode(removing, "  a  b "), Ids({3, 4, 3, 5}));
  EXPECT_EQ(encode(removing, "   "), Ids());
  const std::string keeping =
      sentencepiece_model(Kind::Char, pieces, kKeepsSpaces);
  EXPECT_EQ(encode(keeping, " a "), Ids({3, 3, 4, 3}));
  const std::string behind = sentencepiece_model(
      Kind::Char, pieces, proto_bytes(2, proto_number(24, 1)));
  EXPECT_EQ(encode(behind, "a b"), Ids({4, 3, 5, 3}));
}

TEST(SentencePiece, PartsBetweenSpecialTokensFollowTheConfig) {
  const std::string model =
      sentencepiece_model(Kind::Char, merging_pieces(), kKeepsSpaces);
  const auto ids = [&](const std::string& config) {
    return make(model, config)->encode("a<s>b", true);
  };
  EXPECT_EQ(ids("{}"), Ids({3, 4, 1, 5}));
  EXPECT_EQ(ids(R"({"legacy":true})"), Ids({3, 4, 1, 3, 5}));
  EXPECT_EQ(
      make(model, R"({"legacy":true})")->encode(" a<s> b", true),
      Ids({3, 3, 4, 1, 3, 5}));
  EXPECT_EQ(ids(R"({"add_prefix_space":false})"), Ids({4, 1, 5}));
  EXPECT_EQ(
      ids(R"({"add_bos_token":true,"add_eos_token":true})"),
      Ids({1, 3, 4, 1, 5, 2}));
  EXPECT_EQ(
      ids(R"({"add_bos_token":true,"bos_token":{"content":"</s>"}})"),
      Ids({2, 3, 4, 1, 5}));
}

TEST(SentencePiece, TheConfigAddsTokens) {
  const auto tokenizer = make(
      sentencepiece_model(Kind::Char, merging_pieces()),
      R"({"added_tokens_decoder":{"11":{"content":"<|t|>","special":true}}})");
  EXPECT_EQ(tokenizer->encode("a<|t|>b", false), Ids({3, 4, 11, 5}));
  EXPECT_EQ(tokenizer->vocab_size(), 12);
  EXPECT_TRUE(tokenizer->is_special(11));
  EXPECT_TRUE(tokenizer->is_special(1));
  EXPECT_EQ(tokenizer->decode({3, 4, 11, 5, 2}, true), "ab");
}

TEST(SentencePiece, DecodesAsTheModelSays) {
  std::vector<TestPiece> pieces = {{"▁", -9}, {"a", -9}};
  for (const TestPiece& piece : byte_pieces()) {
    pieces.push_back(piece); // 5 + byte
  }
  const std::string bytes = proto_bytes(2, proto_number(35, 1));
  const auto removing = make(sentencepiece_model(Kind::Bpe, pieces, bytes));
  const auto keeping =
      make(sentencepiece_model(Kind::Bpe, pieces, bytes + kKeepsSpaces));
  EXPECT_EQ(removing->encode("é", false), Ids({3, 5 + 0xC3, 5 + 0xA9}));
  EXPECT_EQ(removing->decode({3, 3, 4, 3, 4}, false), "a a");
  EXPECT_EQ(keeping->decode({3, 3, 4, 3, 4}, false), " a a");
  // A character among bad bytes stays, and each of those is one U+FFFD.
  const Ids ids = {5 + 0xE2, 5 + 0x82, 5 + 'b', 5 + 0xC3, 5 + 0xA9, 5 + 0xF0};
  const std::string text = "\uFFFD\uFFFDbé\uFFFD";
  EXPECT_EQ(keeping->decode(ids, false), text);
  StreamingDetokenizer stream(keeping, false);
  std::string streamed;
  for (const std::int32_t id : ids) {
    streamed += stream.push(id);
  }
  EXPECT_EQ(streamed, "\uFFFD\uFFFDbé"); // the last may become a character
  EXPECT_EQ(streamed + stream.finish(), text);
}

TEST(SentencePiece, RefusesBrokenModels) {
  const auto pieces = merging_pieces();
  const std::string whole = sentencepiece_model(Kind::Bpe, pieces);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    // Cut between two fields it is a model still.
    try {
      make(whole.substr(0, size));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::Corrupt) << size;
    }
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const auto& [model, expected] :
       std::initializer_list<std::pair<std::string, std::string>>{
           {"", "0 unknown pieces"},
           {"{\"a\": 1}", "wire type 3"},
           {whole + proto_piece({"a"}), "piece 11, 'a', is there twice"},
           {whole + proto_piece({"z", nan}), "not a number"},
           {whole + proto_piece({""}), "expected UTF-8"},
           {whole + proto_piece({"\xff"}), "expected UTF-8"},
           {whole + proto_piece({"<0xGG>", 0, Type::Byte}), "<0xFF>"},
           {whole + proto_piece({"<u>", 0, Type::Unknown}), "2 unknown"},
           {whole + proto_piece({"z", 0, static_cast<Type>(9)}), "type 9"},
           {whole + proto_bytes(2, proto_number(35, 1)), "256"},
           {whole + proto_bytes(2, proto_number(3, 7)), "model_type 7"},
           {whole + proto_number(1, 5), "expected bytes"},
           {whole + proto_varint(1 << 3 | 2) + proto_varint(~0ull), "of 1844"},
           {whole + std::string(11, '\x80'), "more than 64 bits"},
           {whole + std::string(1, '\0'), "the tag 0"}}) {
    const std::string message = message_of(model);
    EXPECT_NE(message.find(expected), std::string::npos) << message;
  }
  EXPECT_NE(
      message_of(
          whole + proto_piece({std::string(2000, 'a')}), ErrorKind::Unsupported)
          .find("2000 bytes"),
      std::string::npos);
  EXPECT_NE(
      message_of(
          whole + proto_bytes(5, proto_bytes(2, "x")), ErrorKind::Unsupported)
          .find("a denormalizer"),
      std::string::npos);
}

TEST(SentencePiece, RefusesConfigsThatDoNotFit) {
  const std::string model = sentencepiece_model(Kind::Bpe, merging_pieces());
  for (const auto& [config, expected] :
       std::initializer_list<std::pair<std::string, std::string>>{
           {R"({"added_tokens_decoder":{"x":{}}})", "tokens by id"},
           {R"({"added_tokens_decoder":{"99999999":{}}})", "tokens by id"},
           {R"({"add_bos_token":1})", "true or false"},
           {R"({"add_bos_token":true,"bos_token":"<b>"})", "bos_token"}}) {
    const std::string message = message_of(model, ErrorKind::Corrupt, config);
    EXPECT_NE(message.find(expected), std::string::npos) << message;
  }
}

TEST(SentencePiece, NumbersAddedTokensBehindThePieces) {
  const std::string model = sentencepiece_model(Kind::Bpe, merging_pieces());
  const auto plain = make(model);
  const auto added = make(
      model,
      R"({"added_tokens_decoder":{"20":{"content":"z","special":true}}})");
  EXPECT_EQ(added->token_to_id("z"), plain->vocab_size());
  EXPECT_EQ(added->vocab_size(), plain->vocab_size() + 1);
}

} // namespace
} // namespace optiq::text
