#include "optiq/models/checkpoint.h"

#include <gtest/gtest.h>

#include "optiq/base/error.h"

namespace optiq::models {
namespace {

CheckpointTensor tensor(std::string name, mx::Dtype dtype, mx::Shape shape) {
  return {.name = name, .source = name, .dtype = dtype, .shape = shape};
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

TEST(QuantizationOf, RefusesContradictions) {
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

TEST(Checkpoint, NamesAMissingTensor) {
  try {
    triple(16, 2).at("lm_head.weight");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::NotFound);
    EXPECT_NE(std::string(e.what()).find("lm_head.weight"), std::string::npos);
  }
}

} // namespace
} // namespace optiq::models
