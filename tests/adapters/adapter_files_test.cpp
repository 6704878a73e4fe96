#include "optiq/adapters/adapter_files.h"

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "support/expect_error.h"
#include "support/small_adapter.h"
#include "support/small_checkpoint.h"

namespace optiq::adapters {
namespace {

using artifacts::Json;
using testing::NamedArrays;
using testing::normal_array;
using testing::same_bits;

const std::string kLayers = "model.layers.";
const std::string kPeft = "base_model.model." + kLayers;
// q_proj of the small model is [64, 32].
const std::string kQuery = "1.self_attn.q_proj";

/** One for all tests. */
std::shared_ptr<const models::Model> small_model() {
  static const std::shared_ptr<const models::Model> model = [] {
    const test::ScratchFolder folder;
    testing::write_model(folder.path(), testing::sizes("llama"));
    return models::load_model(io::ModelDirectory::open(folder.path()));
  }();
  return model;
}

class AdapterFilesTest : public ::testing::Test {
 protected:
  /** A new folder with these files. */
  std::filesystem::path folder(
      const Json& config,
      const std::string& tensors,
      const NamedArrays& arrays) {
    auto path = scratch_ / ("adapter" + std::to_string(++folders_));
    std::filesystem::create_directory(path);
    test::write_file(path / "adapter_config.json", config.dump());
    testing::write_tensors(path / tensors, arrays);
    return path;
  }

  std::filesystem::path peft(const Json& changes, const NamedArrays& arrays) {
    Json config{
        {"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 6}, {"bias", "none"}};
    config.update(changes);
    return folder(config, "adapter_model.safetensors", arrays);
  }

  /** Both halves of q_proj of layer 1 in PEFT's layout. */
  static NamedArrays peft_pair(int rank, int in = 32, int out = 64) {
    return {
        {kPeft + kQuery + ".lora_A.weight", normal_array({rank, in}, 1)},
        {kPeft + kQuery + ".lora_B.weight", normal_array({out, rank}, 2)}};
  }

  void refuses(
      ErrorKind kind,
      const std::filesystem::path& path,
      std::initializer_list<std::string> words) {
    test::expect_error(
        kind, words, [&] { load_updates(open_adapter(path, *model_)); });
  }

  test::ScratchFolder scratch_;
  std::shared_ptr<const models::Model> model_ = small_model();
  int folders_ = 0;
};

TEST_F(AdapterFilesTest, WhatIsWrittenReadsBack) {
  const auto updates = testing::random_updates(
      *model_, {"q_proj", "down_proj", "lm_head"}, 3, 1);
  ASSERT_EQ(updates.size(), 8U); // the head is tied
  const auto path = scratch_ / "ours";
  std::filesystem::create_directory(path);
  write_adapter(
      {.updates = updates,
       .base_model = "small",
       .record = {{"iterations", 12}}},
      path);
  const AdapterFiles files = open_adapter(path, *model_);
  EXPECT_STREQ(files.format, "optiq");
  EXPECT_EQ(files.base_model, "small");
  EXPECT_EQ(files.record["optiq"]["iterations"], 12);
  const auto found = load_updates(files);
  ASSERT_EQ(found.size(), updates.size());
  std::uint64_t parameters = 0;
  for (const AdapterUpdate& update : found) {
    const auto wanted = std::find_if(
        updates.begin(), updates.end(), [&](const AdapterUpdate& u) {
          return u.module == update.module;
        });
    ASSERT_NE(wanted, updates.end()) << update.module;
    EXPECT_TRUE(same_bits(io::floats(update.a), io::floats(wanted->a)));
    EXPECT_TRUE(same_bits(io::floats(update.b), io::floats(wanted->b)));
    EXPECT_EQ(update.scale, wanted->scale);
    parameters += update.a.size() + update.b.size();
  }
  EXPECT_EQ(files.parameters(), parameters);
}

// What PEFT 0.19 reads: r and lora_alpha for all modules but those of the
// patterns, alpha / r the scale; and mlx-lm 0.32: one rank, one scale.
TEST_F(AdapterFilesTest, OneConfigIsForBothLibraries) {
  const auto path = testing::write_random_adapter(
      scratch_ / "ours", *model_, {"q_proj", "up_proj"}, 2, 1);
  const Json config = artifacts::read_json_file(path / "adapter_config.json");
  EXPECT_EQ(config["peft_type"], "LORA");
  EXPECT_EQ(config["r"], 2);
  EXPECT_EQ(config["lora_alpha"], 2.0); // scale 1, times rank
  EXPECT_EQ(
      config["rank_pattern"],
      (Json{
          {kLayers + "0.self_attn.q_proj", 1},
          {kLayers + "1.self_attn.q_proj", 1},
          {kLayers + "2.self_attn.q_proj", 1},
          {kLayers + "3.self_attn.q_proj", 1}}));
  EXPECT_EQ(config["alpha_pattern"], Json::object()); // 2 / 1 * 1 is 2, too
  EXPECT_EQ(
      config["target_modules"], (Json{"mlp.up_proj", "self_attn.q_proj"}));
  EXPECT_EQ(config["fine_tune_type"], "lora");
  EXPECT_EQ(
      config["lora_parameters"],
      (Json{
          {"rank", 2},
          {"scale", 1.0},
          {"dropout", 0.0},
          {"keys", {"mlp.up_proj", "self_attn.q_proj"}}}));
  const auto file = io::SafetensorsFile::open(path / "adapters.safetensors");
  for (const io::TensorInfo& tensor : file.tensors()) {
    const bool is_a = tensor.name.ends_with(".lora_a");
    EXPECT_EQ(tensor.shape[is_a ? 1 : 0], 2) << tensor.name;
  }
}

TEST_F(AdapterFilesTest, MlxFilesOfOursAreTheSameAdapter) {
  const auto path = testing::write_random_adapter(
      scratch_ / "ours", *model_, {"q_proj", "up_proj"}, 3, 1);
  const auto exact = load_updates(open_adapter(path, *model_));
  std::filesystem::remove(path / "adapter_model.safetensors");
  const AdapterFiles files = open_adapter(path, *model_);
  EXPECT_STREQ(files.format, "mlx-optiq");
  const auto padded = load_updates(files);
  ASSERT_EQ(padded.size(), exact.size());
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const auto product = [](const AdapterUpdate& u) {
      return io::materialize(mx::multiply(
          mx::matmul(mx::transpose(u.a), u.b), mx::array(u.scale)));
    };
    const mx::array left = product(exact[i]);
    const mx::array right = product(padded[i]);
    EXPECT_TRUE(mx::allclose(left, right, 1e-6, 1e-7).item<bool>());
  }
}

TEST_F(AdapterFilesTest, PeftScalesByAlphaAndRank) {
  const auto scale = [&](const Json& changes, int rank) {
    return open_adapter(peft(changes, peft_pair(rank)), *model_)
        .updates.front()
        .scale;
  };
  EXPECT_EQ(scale(Json::object(), 4), 1.5f);
  EXPECT_EQ(scale({{"use_rslora", true}}, 4), 3.f);
  EXPECT_EQ(scale({{"rank_pattern", {{"q_proj", 2}}}}, 2), 3.f);
  EXPECT_EQ(
      scale(
          {{"rank_pattern", {{"layers.1.self_attn.q_proj", 8}}},
           {"alpha_pattern", {{"q_proj", 16}}}},
          8),
      2.f);
  // Expressions; the end of a path behind a dot, not any end; the first counts.
  EXPECT_EQ(scale({{"alpha_pattern", {{"layers\\.[12]\\..*", 8}}}}, 4), 2.f);
  EXPECT_EQ(scale({{"alpha_pattern", {{"_proj", 8}}}}, 4), 1.5f);
  EXPECT_EQ(
      scale({{"alpha_pattern", {{"k_proj|q_proj", 8}, {"q_proj", 4}}}}, 4),
      2.f);
}

TEST_F(AdapterFilesTest, PeftTensorsAreTurned) {
  const NamedArrays pair = peft_pair(4);
  const AdapterFiles files = open_adapter(peft(Json::object(), pair), *model_);
  EXPECT_STREQ(files.format, "PEFT");
  const auto update = load_updates(files).front();
  EXPECT_EQ(update.module, kLayers + kQuery);
  EXPECT_TRUE(same_bits(io::floats(update.a), io::floats(pair[0].second)));
  EXPECT_TRUE(same_bits(
      io::floats(update.b),
      io::floats(io::materialize(mx::transpose(pair[1].second)))));
}

TEST_F(AdapterFilesTest, MlxLmAndTheOriginal) {
  const NamedArrays pair{
      {kLayers + kQuery + ".lora_a", normal_array({32, 4}, 1)},
      {kLayers + kQuery + ".lora_b", normal_array({4, 64}, 2)}};
  const Json config{
      {"fine_tune_type", "lora"},
      {"num_layers", 4},
      {"lora_parameters", {{"rank", 4}, {"scale", 20.0}, {"dropout", 0.0}}}};
  const auto path = folder(config, "adapters.safetensors", pair);
  const AdapterFiles stock = open_adapter(path, *model_);
  EXPECT_STREQ(stock.format, "mlx-lm");
  EXPECT_EQ(stock.updates.front().scale, 20.f);
  const auto update = load_updates(stock).front();
  EXPECT_TRUE(same_bits(io::floats(update.b), io::floats(pair[1].second)));
  EXPECT_TRUE(same_bits(
      io::floats(update.a),
      io::floats(io::materialize(mx::transpose(pair[0].second)))));
  // The original's ranks differ from the config's, and its record has the
  // scale.
  Json of_original = config;
  of_original["lora_parameters"]["rank"] = 2;
  const auto other = folder(of_original, "adapters.safetensors", pair);
  refuses(ErrorKind::Corrupt, other, {"rank 2 as adapter_config.json says"});
  test::write_file(other / "optiq_lora_config.json", R"({"scale": 3.0})");
  const AdapterFiles original = open_adapter(other, *model_);
  EXPECT_STREQ(original.format, "mlx-optiq");
  EXPECT_EQ(original.updates.front().scale, 3.f);
  EXPECT_EQ(original.updates.front().rank, 4);
}

TEST_F(AdapterFilesTest, RefusesWhatIsMoreThanLowRankUpdates) {
  const std::vector<std::pair<Json, std::string>> cases{
      {{{"peft_type", "LOHA"}}, "LOHA"},
      {{{"use_dora", true}}, "DoRA"},
      {{{"bias", "lora_only"}}, "trained biases"},
      {{{"lora_bias", true}}, "biases of B"},
      {{{"modules_to_save", {"lm_head"}}}, "whole trained modules"},
      {{{"fan_in_fan_out", true}}, "transposed"},
      {{{"target_parameters", {"experts"}}}, "no linears"},
      {{{"layer_replication", {{0, 4}, {2, 5}}}}, "repeated layers"},
      {{{"init_lora_weights", "pissa_niter_4"}}, "changes the base weights"}};
  for (const auto& [changes, words] : cases) {
    refuses(
        ErrorKind::Unsupported, peft(changes, peft_pair(4)), {words, "config"});
  }
  open_adapter(
      peft(
          {{"use_dora", false},
           {"modules_to_save", nullptr},
           {"layer_replication", Json::array()},
           {"init_lora_weights", "gaussian"}},
          peft_pair(4)),
      *model_);
}

TEST_F(AdapterFilesTest, RefusesTensorsThatDoNotFit) {
  const NamedArrays good = peft_pair(4);
  const NamedArrays more{
      good[0],
      good[1],
      {kPeft + kQuery + ".lora_magnitude_vector", normal_array({64}, 1)}};
  refuses(
      ErrorKind::Unsupported,
      peft(Json::object(), more),
      {"lora_magnitude_vector"});
  refuses(
      ErrorKind::Corrupt,
      peft(Json::object(), {good[0]}),
      {"one half", kQuery + ".lora_B.weight"});
  refuses(
      ErrorKind::Corrupt,
      peft(Json::object(), peft_pair(3)),
      {"lora_A.weight' [3, 32]", "rank 4 as adapter_config.json says"});
  refuses(
      ErrorKind::Corrupt,
      peft(
          Json::object(), {good[0], {good[1].first, normal_array({64, 2}, 1)}}),
      {"ranks 4 and 2"});
  refuses(
      ErrorKind::InvalidInput,
      peft(Json::object(), peft_pair(4, 48, 64)),
      {"[64, 48]", "[64, 32]", "another model"});
  const auto renamed = [&](const std::string& module) {
    return peft(
        Json::object(),
        {{"base_model.model." + module + ".lora_A.weight", good[0].second},
         {"base_model.model." + module + ".lora_B.weight", good[1].second}});
  };
  refuses(
      ErrorKind::InvalidInput,
      renamed(kLayers + "7.self_attn.q_proj"),
      {"7.self_attn.q_proj", "no linear layer of this model"});
  refuses(
      ErrorKind::InvalidInput,
      renamed("vision_tower.layers." + kQuery),
      {"vision_tower", "no linear layer"});
  refuses(
      ErrorKind::InvalidInput,
      renamed("model.embed_tokens"),
      {"embed_tokens", "no linear layer"});
  open_adapter(renamed("model.language_model.layers." + kQuery), *model_);
  NamedArrays twice = good;
  twice.emplace_back(
      "base_model.model.language_model." + kLayers + kQuery + ".lora_A.weight",
      good[0].second);
  twice.emplace_back(
      "base_model.model.language_model." + kLayers + kQuery + ".lora_B.weight",
      good[1].second);
  refuses(
      ErrorKind::Corrupt, peft(Json::object(), twice), {"two updates", kQuery});
}

TEST_F(AdapterFilesTest, BrokenFilesGetASentence) {
  const NamedArrays good = peft_pair(4);
  mx::array spoiled = normal_array({64, 4}, 2);
  io::mutable_floats(spoiled)[5] = std::numeric_limits<float>::quiet_NaN();
  refuses(
      ErrorKind::Corrupt,
      peft(Json::object(), {good[0], {good[1].first, spoiled}}),
      {"lora_B.weight", "not finite"});
  const auto path = peft(Json::object(), good);
  const auto tensors = path / "adapter_model.safetensors";
  const std::string bytes = test::read_file(tensors);
  for (const std::size_t n :
       {std::size_t{0}, std::size_t{7}, bytes.size() / 2, bytes.size() - 1}) {
    test::write_file(tensors, bytes.substr(0, n));
    refuses(ErrorKind::Corrupt, path, {"adapter_model.safetensors"});
  }
  std::filesystem::remove(tensors);
  refuses(ErrorKind::NotFound, path, {"adapter_model.bin"});
  refuses(ErrorKind::NotFound, scratch_ / "nowhere", {"adapter_config.json"});
  refuses(ErrorKind::Corrupt, peft({{"r", "four"}}, good), {"'r'", "a number"});
  refuses(ErrorKind::Corrupt, peft({{"r", 0}}, good), {"rank 0"});
  refuses(
      ErrorKind::Corrupt,
      peft({{"alpha_pattern", {{"(q_proj", 1}}}}, good),
      {"alpha_pattern"});
}

TEST_F(AdapterFilesTest, SumsAddWhatEachAdds) {
  const auto one = testing::random_updates(*model_, {"0.mlp.up_proj"}, 1, 1);
  auto two = testing::random_updates(
      *model_, {"0.mlp.up_proj", "1.mlp.up_proj"}, 2, 9);
  const auto sum = sum_of({{one, 1.0}, {two, -0.5}});
  ASSERT_EQ(sum.size(), 2U);
  const auto delta = [](const AdapterUpdate& u) {
    return mx::multiply(
        mx::matmul(mx::transpose(u.b), u.a), mx::array(u.scale));
  };
  EXPECT_EQ(sum[0].a.shape(0), 2);
  EXPECT_TRUE(
      mx::allclose(
          delta(sum[0]),
          mx::add(delta(one[0]), mx::multiply(delta(two[0]), mx::array(-0.5f))),
          1e-5,
          1e-6)
          .item<bool>());
}

TEST_F(AdapterFilesTest, WritesNoUpdateThatIsNotFinite) {
  auto updates = testing::random_updates(*model_, {"q_proj"}, 1, 1);
  updates[2].scale = std::numeric_limits<float>::infinity();
  const auto path = scratch_ / "bad";
  std::filesystem::create_directory(path);
  test::expect_error(
      ErrorKind::InvalidInput, {"2.self_attn.q_proj", "not finite"}, [&] {
        write_adapter({.updates = updates, .record = Json::object()}, path);
      });
  EXPECT_TRUE(std::filesystem::is_empty(path));
}

} // namespace
} // namespace optiq::adapters
