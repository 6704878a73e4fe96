#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"
#include "support/small_checkpoint.h"

#include "optiq/base/system.h"
#include "optiq/models/model.h"

namespace optiq::models {
namespace {

using artifacts::Json;

TEST(Outline, IsTheModelWithoutItsValues) {
  for (const Json& config :
       {testing::sizes("llama"), testing::gemma(40), testing::gemma4()}) {
    const test::ScratchFolder folder;
    testing::write_model(folder.path(), config);
    const auto directory = io::ModelDirectory::open(folder.path());
    const auto model = load_model(directory);
    const auto outline = load_model(directory.outline());
    EXPECT_EQ(outline->info().parameters, model->info().parameters);
    EXPECT_EQ(outline->modules().size(), model->modules().size());
    const std::int32_t token = 3;
    const mx::array zeros = outline->embed(std::span(&token, 1));
    for (const float value : io::floats(zeros)) {
      ASSERT_EQ(value, 0.f);
    }
  }
}

TEST(Outline, KeepsTheValuesThatAreNamed) {
  const test::ScratchFolder folder;
  testing::write_model(folder.path(), testing::sizes("llama"));
  const auto directory = io::ModelDirectory::open(folder.path());
  const auto model = load_model(directory);
  const auto part = load_model(directory.outline([](const std::string& name) {
    return name == "model.embed_tokens.weight";
  }));
  const std::int32_t token = 3;
  const mx::array x = model->embed(std::span(&token, 1));
  const mx::array y = part->embed(std::span(&token, 1));
  EXPECT_TRUE(
      std::equal(x.data<float>(), x.data<float>() + x.size(), y.data<float>()));
}

TEST(Outline, TakesNoMemoryForWhatItLeavesOut) {
  const test::ScratchFolder folder;
  Json config = testing::sizes("llama");
  config["vocab_size"] = 1 << 16;
  config["hidden_size"] = 1 << 12;
  // 512 MB that only the header of a sparse file names.
  const std::string header = fmt::format(
      R"({{"model.embed_tokens.weight":{{"dtype":"BF16","shape":[65536,4096],)"
      R"("data_offsets":[0,{}]}}}})",
      std::uint64_t{2} << 28);
  const std::uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  test::write_file(folder / "model.safetensors", file + header);
  std::filesystem::resize_file(
      folder / "model.safetensors", 8 + length + (std::uint64_t{2} << 28));
  test::write_file(folder / "config.json", config.dump());
  const auto directory = io::ModelDirectory::open(folder.path());
  const std::uint64_t before = peak_rss_bytes();
  test::expect_error(ErrorKind::NotFound, {"model.layers.0"}, [&] {
    load_model(directory.outline());
  });
  EXPECT_LT(peak_rss_bytes() - before, 64u << 20);
}

/** What load_model says of a model when one number of its config is another. */
void expect_refused(
    const char* key,
    int value,
    const std::vector<std::string>& words) {
  const test::ScratchFolder folder;
  Json config = testing::sizes("llama");
  testing::write_model(folder.path(), config);
  config[key] = value;
  test::write_file(folder / "config.json", config.dump());
  const auto directory = io::ModelDirectory::open(folder.path());
  try {
    load_model(directory.outline());
    FAIL() << key;
  } catch (const Error& error) {
    for (const std::string& word : words) {
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos)
          << error.what();
    }
  }
}

TEST(Outline, RefusesAConfigWhoseShapesDoNotFit) {
  expect_refused(
      "vocab_size",
      98,
      {"embed_tokens", "(vocab_size)", "[97, 32]", "[98, 32]"});
  expect_refused(
      "hidden_size", 64, {"embed_tokens", "(hidden_size)", "[97, 64]"});
  expect_refused(
      "intermediate_size", 64, {"mlp", "(intermediate_size)", "[64, 32]"});
  expect_refused(
      "num_attention_heads", 8, {"q_proj", "num_attention_heads", "[128, 32]"});
  expect_refused(
      "num_key_value_heads", 4, {"k_proj", "num_key_value_heads", "[64, 32]"});
  expect_refused("head_dim", 32, {"q_proj", "head_dim"});
  expect_refused("num_hidden_layers", 5, {"model.layers.4", "another model"});
  expect_refused(
      "num_hidden_layers", 3, {"model.layers.3", "num_hidden_layers"});
}

} // namespace
} // namespace optiq::models
