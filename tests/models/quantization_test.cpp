#include "optiq/models/quantization.h"

#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "io/safetensors_cases.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq::models {
namespace {

using test::expect_error;

CheckpointTensor
tensor(const std::string& name, mx::Dtype dtype, mx::Shape shape) {
  return {
      .name = name, .source = name, .dtype = dtype, .shape = std::move(shape)};
}

/** A triple of a [8, 128] matrix: `words` u32 and `groups` scales per row. */
Checkpoint triple(int words, int groups) {
  Checkpoint checkpoint;
  checkpoint.tensors = {
      tensor("m.weight", mx::uint32, {8, words}),
      tensor("m.scales", mx::bfloat16, {8, groups}),
      tensor("m.biases", mx::bfloat16, {8, groups}),
      tensor("dense.weight", mx::bfloat16, {8, 128})};
  for (std::size_t i = 0; i < checkpoint.tensors.size(); ++i) {
    checkpoint.index[checkpoint.tensors[i].name] = i;
  }
  return checkpoint;
}

artifacts::Json config(const char* quantization) {
  return artifacts::Json{
      {"quantization", artifacts::Json::parse(quantization)}};
}

TEST(QuantizationOf, ReadsWidthFromEntryAndShapes) {
  const auto q = quantization_of(
      config(R"({"group_size":64,"bits":4,"m":{"bits":3,"group_size":64}})"),
      triple(12, 2),
      "m");
  ASSERT_TRUE(q.has_value());
  EXPECT_EQ(q->bits, 3);
  EXPECT_EQ(q->group_size, 64);
}

TEST(QuantizationOf, InfersWidthWithoutAnEntry) {
  const auto q = quantization_of(artifacts::Json::object(), triple(20, 2), "m");
  ASSERT_TRUE(q.has_value());
  EXPECT_EQ(q->bits, 5);
  EXPECT_EQ(q->group_size, 64);
}

TEST(QuantizationOf, TellsEqualShapesApartByTheEntry) {
  // 16 words and 2 groups: 4 bits in groups of 64, 8 bits in groups of 32, or
  // 2 bits in groups of 128.
  const auto q = quantization_of(
      config(R"({"m":{"bits":8,"group_size":32}})"), triple(16, 2), "m");
  EXPECT_EQ(q->bits, 8);
  EXPECT_EQ(q->group_size, 32);
}

TEST(QuantizationOf, TakesTheBlocksWidthWithoutAnEntry) {
  const auto q = quantization_of(
      config(R"({"bits":8,"group_size":32,"other":{"bits":2}})"),
      triple(16, 2),
      "m");
  EXPECT_EQ(q->bits, 8);
  EXPECT_EQ(q->group_size, 32);
}

TEST(QuantizationOf, TakesNullAsAbsent) {
  const auto q = quantization_of(
      config(R"({"m":{"bits":3,"group_size":null,"mode":null}})"),
      triple(12, 2),
      "m");
  ASSERT_TRUE(q.has_value());
  EXPECT_EQ(q->bits, 3);
  EXPECT_EQ(q->group_size, 64);
}

TEST(QuantizationOf, LeavesDenseModulesAlone) {
  EXPECT_FALSE(quantization_of(config("{}"), triple(16, 2), "dense"));
  EXPECT_FALSE(
      quantization_of(config(R"({"dense":false})"), triple(16, 2), "dense"));
}

TEST(QuantizationOf, FindsTheWidthOfKnownRowsWhateverTheBlockSays) {
  // 16 words and 2 groups, as above: the rows tell the pairs apart.
  const char* other = R"({"bits":3,"group_size":32})";
  for (const auto& [in, bits] :
       {std::pair(64, 8), std::pair(128, 4), std::pair(256, 2)}) {
    const auto q = quantization_of(config(other), triple(16, 2), "m", in);
    ASSERT_TRUE(q.has_value());
    EXPECT_EQ(q->bits, bits);
    EXPECT_EQ(q->group_size, in / 2);
  }
  // Unknown rows: the block's group, where it says no pair that fits.
  EXPECT_EQ(
      quantization_of(
          config(R"({"bits":3,"group_size":128})"), triple(16, 2), "m")
          ->bits,
      2);
}

TEST(QuantizationOf, ReadsTrueAsTheBlock) {
  const auto q = quantization_of(
      config(R"({"bits":4,"group_size":64,"m":true})"),
      triple(16, 2),
      "m",
      128);
  EXPECT_EQ(q->bits, 4);
}

TEST(QuantizationOf, ReadsTheBlockWhereverItIs) {
  const auto block = artifacts::Json::parse(R"({"m":{"bits":8}})");
  for (const artifacts::Json& json :
       {artifacts::Json{
            {"quantization", nullptr}, {"quantization_config", block}},
        artifacts::Json{{"quantization_config", block}},
        artifacts::Json{{"text_config", {{"quantization_config", block}}}}}) {
    EXPECT_EQ(quantization_of(json, triple(16, 2), "m")->bits, 8) << json;
  }
}

TEST(QuantizationOf, NamesTheModeOfFloatScales) {
  for (const auto& [words, groups, mode] :
       {std::tuple(16, 8, "nvfp4"),
        std::tuple(16, 4, "mxfp4"),
        std::tuple(32, 4, "mxfp8")}) {
    Checkpoint other = triple(words, groups);
    other.tensors[1].dtype = mx::uint8;
    other.index.erase("m.biases"); // these formats have none
    expect_error(ErrorKind::Unsupported, {"[quantization_of] m", mode}, [&] {
      quantization_of(artifacts::Json::object(), other, "m");
    });
  }
}

TEST(QuantizationOf, NamesTheConfigKeyOfRowsThatDoNotFit) {
  const std::string module = "model.layers.0.mlp.up_proj";
  Checkpoint checkpoint = triple(16, 2);
  for (CheckpointTensor& t : checkpoint.tensors) {
    checkpoint.index.erase(t.name);
    t.name = module + t.name.substr(t.name.find('.'));
    checkpoint.index.emplace(t.name, &t - checkpoint.tensors.data());
  }
  expect_error(ErrorKind::Corrupt, {"hidden_size", "96", "16 words"}, [&] {
    quantization_of(artifacts::Json::object(), checkpoint, module, 96);
  });
}

TEST(QuantizationOf, RefusesContradictions) {
  // What config.json says is dense has scales, or the other way round.
  for (const char* entry : {"false", "null"}) {
    EXPECT_THROW(
        quantization_of(
            config((R"({"m":)" + std::string(entry) + "}").c_str()),
            triple(16, 2),
            "m"),
        Error);
  }
  EXPECT_THROW(
      quantization_of(config(R"({"dense":true})"), triple(16, 2), "dense"),
      Error);
  // Entry against shapes; an entry without scales; another mode; no width
  // fits the shapes; biases of another shape.
  EXPECT_THROW(
      quantization_of(
          config(R"({"m":{"bits":5,"group_size":64}})"), triple(16, 2), "m"),
      Error);
  EXPECT_THROW(
      quantization_of(
          config(R"({"dense":{"bits":4,"group_size":64}})"),
          triple(16, 2),
          "dense"),
      Error);
  EXPECT_THROW(
      quantization_of(
          config(R"({"m":{"bits":4,"group_size":64,"mode":"mxfp4"}})"),
          triple(16, 2),
          "m"),
      Error);
  EXPECT_THROW(
      quantization_of(artifacts::Json::object(), triple(14, 2), "m"), Error);
  EXPECT_THROW(
      quantization_of(config(R"({"m":{"bits":"four"}})"), triple(16, 2), "m"),
      Error);
  auto broken = triple(16, 2);
  broken.tensors[2].shape = {8, 3};
  EXPECT_THROW(quantization_of(artifacts::Json::object(), broken, "m"), Error);
}

/** A directory with one small tensor. */
io::ModelDirectory directory_with(
    const test::ScratchFolder& folder,
    const std::string& config) {
  test::write_file(
      folder / "model.safetensors",
      test::one_tensor("\"U8\"", "[4]", "[0,4]", 4));
  test::write_file(folder / "config.json", config);
  return io::ModelDirectory::open(folder.path());
}

TEST(RefuseForeignQuantization, NamesTheMethod) {
  const test::ScratchFolder folder;
  const auto refused = [&](const char* config, const char* name) {
    expect_error(ErrorKind::Unsupported, {name, "optiq convert"}, [&] {
      refuse_foreign_quantization(directory_with(folder, config));
    });
  };
  const auto accepted = [&](const char* config) {
    EXPECT_NO_THROW(
        refuse_foreign_quantization(directory_with(folder, config)));
  };
  refused(R"({"quantization_config":{"quant_method":"awq"}})", "\"awq\"");
  refused(
      R"({"quantization":null,"quantization_config":{"quant_method":"fp8"}})",
      "\"fp8\"");
  refused(
      R"({"text_config":{"quantization_config":{"quant_method":"gptq"}}})",
      "\"gptq\"");
  accepted("{}");
  accepted(R"({"quantization_config":null})");
  accepted(R"({"quantization_config":{"bits":4,"quant_method":null}})");
  accepted(
      R"({"quantization":{"bits":4},"quantization_config":{"quant_method":"x"}})");
  test::write_file(
      folder / "hf_quant_config.json",
      R"({"quantization":{"quant_algo":"NVFP4"}})");
  refused("{}", "NVFP4");
  accepted(R"({"quantization":{"bits":4}})");
}

} // namespace
} // namespace optiq::models
