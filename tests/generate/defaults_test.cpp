#include "optiq/generate/defaults.h"

#include <vector>

#include <gtest/gtest.h>

#include "support/scratch_folder.h"
#include "text/tokenizer_json_for_tests.h"

#include "optiq/io/safetensors.h"

namespace optiq::generate {
namespace {

using artifacts::Json;

/** stop_ids of a directory with these files; the tokenizer has <eos> = 256 and
 * <end_of_turn> = 257. */
std::vector<std::int32_t> stops(
    const Json& config,
    const Json& generation,
    const Json& tokenizer_config) {
  const test::ScratchFolder folder;
  io::write_safetensors(folder / "model.safetensors", {}, {});
  test::write_file(folder / "config.json", config.dump());
  if (!generation.is_null()) {
    test::write_file(folder / "generation_config.json", generation.dump());
  }
  if (!tokenizer_config.is_null()) {
    test::write_file(folder / "tokenizer_config.json", tokenizer_config.dump());
  }
  Json tokenizer = text::byte_level_json({});
  tokenizer["added_tokens"] = Json::array(
      {text::added_token(256, "<eos>", {"special"}),
       text::added_token(257, "<end_of_turn>", {"special"})});
  test::write_file(folder / "tokenizer.json", tokenizer.dump());
  const auto directory = io::ModelDirectory::open(folder.path());
  return stop_ids(directory, *load_tokenizer(directory));
}

using Ids = std::vector<std::int32_t>;

TEST(StopIds, TakesListsOfGenerationConfig) {
  // Gemma 3: turn end and document end.
  EXPECT_EQ(
      stops(
          {{"eos_token_id", 1}},
          {{"eos_token_id", {1, 106}}},
          {{"eos_token", "<eos>"}}),
      (Ids{1, 106, 256}));
  // Llama 3.1.
  EXPECT_EQ(
      stops(
          Json::object(),
          {{"eos_token_id", {128001, 128008, 128009}}},
          {{"eos_token", {{"content", "<end_of_turn>"}}}}),
      (Ids{257, 128001, 128008, 128009}));
}

TEST(StopIds, FallsBackToConfig) {
  EXPECT_EQ(
      stops({{"eos_token_id", {1, 106}}}, nullptr, nullptr), (Ids{1, 106}));
  EXPECT_EQ(
      stops(
          {{"eos_token_id", nullptr}, {"text_config", {{"eos_token_id", 7}}}},
          {{"do_sample", true}},
          nullptr),
      (Ids{7}));
}

TEST(StopIds, TakesTheTokenizersOwnOnce) {
  EXPECT_EQ(
      stops({{"eos_token_id", 256}}, nullptr, {{"eos_token", "<eos>"}}),
      (Ids{256}));
  EXPECT_EQ(
      stops(Json::object(), nullptr, {{"eos_token", "<new>"}}), (Ids{258}));
}

TEST(StopIds, TakesAllPlaces) {
  // Of config.json only what is special, beside a list that was made for the
  // model: 35 may be left over from another one.
  EXPECT_EQ(
      stops(
          {{"eos_token_id", {35, 256}}},
          {{"eos_token_id", 300}},
          {{"eos_token", "<end_of_turn>"}}),
      (Ids{256, 257, 300}));
}

TEST(StopIds, LeavesOutWhatHasNoRowOfTheEmbeddings) {
  EXPECT_EQ(
      stops(
          {{"vocab_size", 257}},
          {{"eos_token_id", {-1, 256, 257}}},
          {{"eos_token", "<new>"}}),
      (Ids{256}));
}

} // namespace
} // namespace optiq::generate
