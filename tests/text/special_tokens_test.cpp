#include "optiq/text/special_tokens.h"

#include <map>

#include <gtest/gtest.h>

#include "text/tokenizer_json_for_tests.h"

#include "optiq/base/error.h"
#include "optiq/text/tokenizer.h"

namespace optiq::text {
namespace {

using Files = std::map<std::string, Json>;

SpecialTokens read(const Files& files) {
  return SpecialTokens::read(
      [&](const char* name) {
        const auto found = files.find(name);
        return found == files.end() ? std::nullopt
                                    : std::optional(found->second.dump());
      },
      "folder");
}

/** The 256 bytes, "ab" = 256, and the added tokens given. */
std::shared_ptr<const Tokenizer> tokenizer(
    const Files& files,
    const Json& added = Json::array()) {
  Json json = byte_level_json({"a b"});
  json["added_tokens"] = added;
  const SpecialTokens special = read(files);
  return Tokenizer::parse(json.dump(), "test", &special);
}

using Ids = std::vector<std::int32_t>;

TEST(SpecialTokens, TakesTextAndObjects) {
  EXPECT_EQ(
      read({{"tokenizer_config.json",
             {{"bos_token", "<s>"},
              {"eos_token", {{"content", "</s>"}, {"lstrip", true}}},
              {"pad_token", nullptr},
              {"image_token", "<image>"},
              {"add_bos_token", true},
              {"extra_special_tokens", {{"video_token", "<video>"}}}}}})
          .by_role(),
      Json(
          {{"bos_token", "<s>"},
           {"eos_token", "</s>"},
           {"image_token", "<image>"},
           {"video_token", "<video>"}}));
}

TEST(SpecialTokens, TheMapReplacesTheConfig) {
  const Json config = {
      {"bos_token", "<s>"}, {"eos_token", "</s>"}, {"pad_token", "<pad>"}};
  const Json map = {
      {"bos_token", {{"content", "<bos>"}}}, {"pad_token", nullptr}};
  const auto roles = read({{"tokenizer_config.json", config},
                           {"special_tokens_map.json", map}})
                         .by_role();
  EXPECT_EQ(roles, Json({{"bos_token", "<bos>"}, {"eos_token", "</s>"}}));
  Json with_list = config;
  with_list["added_tokens_decoder"] = Json::object();
  EXPECT_EQ(
      read({{"tokenizer_config.json", with_list},
            {"special_tokens_map.json", map}})
          .by_role(),
      config);
}

TEST(SpecialTokens, AClassHasTokensWhereTheFilesAreSilent) {
  const Json config = {
      {"tokenizer_class", "LlamaTokenizerFast"}, {"eos_token", nullptr}};
  EXPECT_EQ(
      read({{"tokenizer_config.json", config}}).by_role(),
      Json({{"bos_token", "<s>"}, {"unk_token", "<unk>"}}));
  // As the files of Llama 3's kind of tokenizer say it.
  EXPECT_EQ(
      read({{"tokenizer_config.json", config},
            {"tokenizer.json", {{"decoder", {{"type", "ByteLevel"}}}}}})
          .by_role(),
      Json::object());
}

TEST(SpecialTokens, NewTokensAreFoundInTexts) {
  const auto plain = tokenizer({});
  EXPECT_EQ(plain->encode("<s>", false).size(), 3u);
  const auto named = tokenizer(
      {{"tokenizer_config.json",
        {{"bos_token", "<s>"},
         {"eos_token", "ab"}, // of the vocabulary: keeps its id
         {"extra_special_tokens", {"<x>"}}}}});
  EXPECT_EQ(named->encode("<s>cab<x>", false), (Ids{257, 'c', 256, 258}));
  EXPECT_TRUE(named->is_special(256));
  EXPECT_EQ(named->decode({257, 'c', 256, 258}, true), "c");
}

TEST(SpecialTokens, TheListGivesFlagsAndIds) {
  const Json added = Json::array({added_token(257, "<s>", {})});
  const Json list = {
      {"257", {{"content", "<s>"}, {"special", true}, {"rstrip", true}}},
      {"300", {{"content", "<new>"}, {"special", false}}}};
  const auto listed = tokenizer(
      {{"tokenizer_config.json", {{"added_tokens_decoder", list}}}}, added);
  // The id of a new token is the next one, whatever the list says.
  EXPECT_EQ(listed->encode("<s>  c<new>", false), (Ids{257, 'c', 258}));
  EXPECT_TRUE(listed->is_special(257));
  EXPECT_FALSE(listed->is_special(258));
}

TEST(SpecialTokens, AddedTokensFileYieldsToTheTokenizer) {
  const Json added = Json::array({added_token(257, "<s>", {"special"})});
  const Files files = {
      {"tokenizer_config.json", {{"pad_token", "<pad>"}}},
      {"added_tokens.json",
       {{"<other>", 257}, {"<pad>", 258}, {"<plain>", 259}}}};
  const auto made = tokenizer(files, added);
  EXPECT_EQ(made->token_to_id("<other>"), std::nullopt);
  EXPECT_EQ(made->encode("<pad><plain>", false), (Ids{258, 259}));
  EXPECT_TRUE(made->is_special(258));
  EXPECT_FALSE(made->is_special(259));
}

TEST(SpecialTokens, RefusesWhatIsNoToken) {
  for (const Json& config :
       {Json({{"bos_token", 5}}),
        Json({{"eos_token", {{"lstrip", true}}}}),
        Json({{"bos_token", {{"content", "x"}, {"lstrip", "no"}}}}),
        Json({{"extra_special_tokens", {1}}}),
        Json({{"added_tokens_decoder", {{"x", {{"content", "x"}}}}}}),
        Json({{"added_tokens_decoder", {{"-1", {{"content", "x"}}}}}}),
        Json({{"added_tokens_decoder", Json::array()}}),
        Json::array()}) {
    EXPECT_THROW(read({{"tokenizer_config.json", config}}), Error)
        << config.dump();
  }
  EXPECT_THROW(read({{"added_tokens.json", {{"<s>", "one"}}}}), Error);
}

} // namespace
} // namespace optiq::text
