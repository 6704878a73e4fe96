#include <gtest/gtest.h>

#include "io/gguf/small_model.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"
#include "text/charsmap_for_tests.h"
#include "text/sentencepiece_for_tests.h"

#include "optiq/generate/defaults.h"
#include "optiq/io/safetensors.h"

namespace optiq::generate {
namespace {

using Ids = std::vector<std::int32_t>;

TEST(LoadTokenizer, TakesASentencePieceModelWithoutTokenizerJson) {
  const test::ScratchFolder folder;
  io::write_safetensors(folder / "model.safetensors", {}, {});
  test::write_file(folder / "config.json", "{}");
  const auto directory = [&] {
    return io::ModelDirectory::open(folder.path());
  };
  test::expect_error(
      ErrorKind::NotFound, {"tokenizer.json", "tokenizer.model"}, [&] {
        load_tokenizer(directory());
      });
  test::write_file(
      folder / "tokenizer.model",
      text::sentencepiece_model(
          text::SentencePieceModel::Kind::Bpe,
          {{"\u2581", -3}, {"a", -2}, {"\u2581a", -1}}));
  EXPECT_EQ(load_tokenizer(directory())->encode("a b", true), Ids({5, 3, 0}));
  test::write_file(
      folder / "tokenizer_config.json", R"({"add_bos_token": true})");
  EXPECT_EQ(load_tokenizer(directory())->encode("a", true), Ids({1, 5}));
  EXPECT_EQ(
      text::Tokenizer::load(folder.path())->encode("a", true), Ids({1, 5}));
}

/** A GGUF file with the tokenizer model t5: <unk>, </s>, a space mark, a, ab.
 */
test::SmallModel t5_model() {
  test::SmallModel model = test::llama();
  const std::string t = "tokenizer.ggml.";
  model.values.erase(t + "pre");
  model.values.erase(t + "merges");
  model.set_text(t + "model", "t5");
  model.set(
      t + "tokens",
      test::gguf_texts(t + "tokens", {"<unk>", "</s>", "\u2581", "a"}));
  model.set(
      t + "token_type",
      test::gguf_array(
          t + "token_type",
          5,
          4,
          test::u32(2) + test::u32(3) + test::u32(1) + test::u32(1)));
  std::string scores;
  for (const float score : {0.f, 0.f, -1.f, -2.f}) {
    scores += test::u32(std::bit_cast<std::uint32_t>(score));
  }
  model.set(t + "scores", test::gguf_array(t + "scores", 6, 4, scores));
  model.set_u32(t + "eos_token_id", 1);
  return model;
}

TEST(LoadTokenizer, MakesASentencePieceModelOfGgufsT5) {
  const test::ScratchFolder folder;
  test::write_file(folder / "m.gguf", t5_model().bytes());
  const auto directory = io::ModelDirectory::open(folder / "m.gguf");
  EXPECT_FALSE(directory.side_file("tokenizer.json"));
  const auto tokenizer = load_tokenizer(directory);
  EXPECT_EQ(tokenizer->encode("  a  xy a", true), Ids({2, 3, 2, 0, 2, 3, 1}));
  EXPECT_EQ(tokenizer->decode({2, 3, 2, 3, 1}, true), "a a");

  test::SmallModel mapped = t5_model();
  const std::string key = "tokenizer.ggml.precompiled_charsmap";
  const std::string map = text::two_rules().bytes(text::kTwoRulesTexts);
  mapped.set(key, test::gguf_array(key, 0, map.size(), map));
  test::write_file(folder / "c.gguf", mapped.bytes());
  EXPECT_EQ(
      load_tokenizer(io::ModelDirectory::open(folder / "c.gguf"))
          ->encode("a", true),
      Ids({2, 0, 1})); // "a" becomes "X"

  test::SmallModel broken = t5_model();
  broken.values.erase("tokenizer.ggml.scores");
  test::write_file(folder / "b.gguf", broken.bytes());
  test::expect_error(ErrorKind::Corrupt, {"scores"}, [&] {
    load_tokenizer(io::ModelDirectory::open(folder / "b.gguf"));
  });
}

} // namespace
} // namespace optiq::generate
