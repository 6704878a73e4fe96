#include <gtest/gtest.h>

#include "io/gguf/small_model.h"
#include "support/scratch_folder.h"

#include "optiq/io/gguf/special_tokens_impl.h"
#include "optiq/io/gguf/tokenizer.h"

namespace optiq::io {
namespace {

using artifacts::Json;
using test::SmallModel;

const std::string kT = "tokenizer.ggml.";

/** A byte-level vocabulary of these tokens, all of type 1. */
SmallModel model_of(const std::vector<std::string>& tokens) {
  SmallModel model = test::llama();
  model.set(kT + "tokens", test::gguf_texts(kT + "tokens", tokens));
  model.values.erase(kT + "token_type");
  model.values.erase(kT + "eos_token_id");
  model.set(kT + "merges", test::gguf_texts(kT + "merges", {}));
  return model;
}

void set_types(SmallModel& model, const std::vector<std::uint32_t>& types) {
  std::string items;
  for (const std::uint32_t type : types) {
    items += test::u32(type);
  }
  model.set(
      kT + "token_type",
      test::gguf_array(kT + "token_type", 5, types.size(), items));
}

void set_flag(SmallModel& model, const std::string& key, bool value) {
  model.set(
      kT + key, test::gguf_value(kT + key, 7, std::string(1, value ? 1 : 0)));
}

/** What `read` makes of the model's file. */
template <typename Read>
auto of_file(const SmallModel& model, Read read) {
  const test::ScratchFolder folder;
  test::write_file(folder / "small.gguf", model.bytes());
  return read(GgufFile::open(folder / "small.gguf"));
}

std::vector<std::uint32_t> ends(const SmallModel& model) {
  return of_file(model, [](const GgufFile& file) {
    return read_special_tokens(file).ends;
  });
}

Json tokenizer(const SmallModel& model) {
  return Json::parse(of_file(model, gguf_tokenizer_json));
}

using Ids = std::vector<std::uint32_t>;

TEST(GgufSpecialTokens, EndsAreKnownByIdAndBySpelling) {
  SmallModel model =
      model_of({"a", "<|endoftext|>", "<|im_end|>", "b", "<|eom|>", "</s>"});
  EXPECT_EQ(ends(model), (Ids{1, 2, 5}));
  model.set_u32(kT + "eos_token_id", 3);
  model.set_u32(kT + "eot_token_id", 4);
  model.set_u32(kT + "eom_token_id", 0);
  EXPECT_EQ(ends(model), (Ids{0, 1, 2, 3, 4, 5}));
  const Json config = of_file(model, gguf_generation_config);
  EXPECT_EQ(config["eos_token_id"], Json({0, 1, 2, 3, 4, 5}));
}

TEST(GgufSpecialTokens, FillingTheMiddleEndsWithTheFile) {
  SmallModel model = model_of(
      {"<|fim_prefix|>",
       "<|fim_middle|>",
       "<|fim_pad|>",
       "<|repo_name|>",
       "<|file_sep|>",
       "a"});
  EXPECT_EQ(ends(model), (Ids{2, 3, 4}));
  model.set_u32(kT + "fim_pad_token_id", 5); // the key counts, not the spelling
  EXPECT_EQ(ends(model), (Ids{3, 4, 5}));
}

TEST(GgufSpecialTokens, SpellingsThatEndNothingBesideOthers) {
  EXPECT_EQ(ends(model_of({"<|end|>", "<|return|>", "<|call|>"})), (Ids{1, 2}));
  EXPECT_EQ(ends(model_of({"<|end|>", "<|call|>"})), (Ids{0, 1}));
  EXPECT_EQ(ends(model_of({"</s>", "<|tool_response>"})), (Ids{1}));
}

TEST(GgufSpecialTokens, IdsOutsideTheVocabularyAreAsIfAbsent) {
  SmallModel model = model_of({"a", "b", "c"});
  model.set_u32(kT + "bos_token_id", 1);
  model.set_u32(kT + "eos_token_id", 3);
  model.set_u32(kT + "padding_token_id", 0xffffffff);
  set_flag(model, "add_bos_token", true);
  set_flag(model, "add_eos_token", true);
  const Json config = of_file(model, gguf_tokenizer_config);
  EXPECT_EQ(config["bos_token"], "b");
  EXPECT_FALSE(config.contains("eos_token"));
  EXPECT_FALSE(config.contains("pad_token"));
  EXPECT_EQ(
      of_file(model, gguf_generation_config), Json({{"bos_token_id", 1}}));
  // No EOS to add.
  const Json single = tokenizer(model)["post_processor"]["single"];
  ASSERT_EQ(single.size(), 2u);
  EXPECT_EQ(single[0]["SpecialToken"]["id"], "b");
}

TEST(GgufSpecialTokens, SentencePieceHasDefaults) {
  SmallModel model = model_of({"<unk>", "<s>", "</s>", "a"});
  model.set_text(kT + "model", "llama");
  model.set(
      kT + "scores", test::gguf_array(kT + "scores", 6, 4, std::string(16, 0)));
  const Json config = of_file(model, gguf_tokenizer_config);
  EXPECT_EQ(config["unk_token"], "<unk>");
  EXPECT_EQ(config["bos_token"], "<s>");
  EXPECT_EQ(config["eos_token"], "</s>");
  const Json json = tokenizer(model);
  EXPECT_EQ(json["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
  EXPECT_EQ(json["post_processor"]["single"].size(), 2u); // no EOS
  set_flag(model, "add_bos_token", false);
  EXPECT_TRUE(tokenizer(model)["post_processor"].is_null());
}

TEST(GgufSpecialTokens, TypesAreCorrected) {
  SmallModel model =
      model_of({"a", "<|im_end|>", "<0x41>", "b", "", "", "<u>"});
  set_types(model, {6, 1, 6, 17, 1, 1, 2, 1}); // one more than there are tokens
  const Json json = tokenizer(model);
  Json added = Json::array();
  for (const Json& token : json["added_tokens"]) {
    added.push_back({token["content"], token["id"], token["special"]});
  }
  EXPECT_EQ(added, Json({{"<|im_end|>", 1, true}, {"<u>", 6, true}}));
  EXPECT_EQ(
      json["model"]["vocab"],
      Json({{"a", 0}, {"<|im_end|>", 1}, {"<0x41>", 2}, {"b", 3}, {"<u>", 6}}));
}

TEST(GgufSpecialTokens, WithoutPreTheRuleIsTheDefault) {
  SmallModel model = model_of({"a"});
  model.set_text(kT + "pre", "default");
  const Json named = tokenizer(model)["pre_tokenizer"];
  model.values.erase(kT + "pre");
  EXPECT_EQ(tokenizer(model)["pre_tokenizer"], named);
  EXPECT_EQ(named["pretokenizers"].size(), 5u);
}

TEST(GgufSpecialTokens, SuppressedTokensReachTheGeneration) {
  SmallModel model = model_of({"a", "b"});
  const std::string key = kT + "suppress_tokens";
  model.set(
      key,
      test::gguf_array(
          key, 5, 3, test::u32(1) + test::u32(7) + test::u32(0xffffffff)));
  EXPECT_EQ(
      of_file(model, gguf_generation_config), Json({{"suppress_tokens", {1}}}));
}

} // namespace
} // namespace optiq::io
