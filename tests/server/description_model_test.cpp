#include <algorithm>

#include <gtest/gtest.h>

#include "support/tiny_model.h"

#include "optiq/artifacts/model_map.h"
#include "optiq/models/model_map.h"
#include "optiq/server/description.h"

namespace optiq::server {
namespace {

using artifacts::Json;

Json describe_tiny(const std::vector<artifacts::KvLayer>& kv = {}) {
  const auto directory = io::ModelDirectory::open(testing::tiny_model_path());
  const std::shared_ptr<const models::Model> model = testing::load_tiny_model();
  return describe_model(directory, {model, kernels::Compute::Fast, kv});
}

TEST(DescribeModel, HasEveryMatrixOnce) {
  const Json found = describe_tiny();
  const artifacts::ModelMap map =
      models::map_model(io::ModelDirectory::open(testing::tiny_model_path()));
  EXPECT_EQ(found["model_type"], map.model_type);
  EXPECT_EQ(found["parameters"], artifacts::parameters(map));
  EXPECT_EQ(found["file_bytes"], artifacts::file_bytes(map));
  EXPECT_EQ(found["device"], "cpu");
  EXPECT_EQ(found["compute"], "fast");
  EXPECT_EQ(found["context"], 4096);
  EXPECT_EQ(found["vocab_size"], 4096);

  std::size_t matrices = found["outside"].size();
  std::uint64_t bytes = 0;
  ASSERT_EQ(found["layers"].size(), 8u);
  for (const Json& layer : found["layers"]) {
    matrices += layer["parts"].size();
    for (const Json& part : layer["parts"]) {
      EXPECT_EQ(part["bits"], 16);
      EXPECT_EQ(part["group_size"], 0);
      bytes += part["bytes"].get<std::uint64_t>();
      EXPECT_TRUE(std::any_of(
          found["columns"].begin(),
          found["columns"].end(),
          [&](const Json& column) { return column["part"] == part["part"]; }));
    }
  }
  for (const Json& part : found["outside"]) {
    bytes += part["bytes"].get<std::uint64_t>();
  }
  EXPECT_EQ(matrices, map.modules.size());
  EXPECT_LT(bytes, artifacts::file_bytes(map));
  EXPECT_GT(bytes, artifacts::file_bytes(map) / 2);
}

TEST(DescribeModel, SaysWhatEachLayerKeepsOfASequence) {
  const Json found = describe_tiny(
      {{.layer_idx = 3,
        .codec = {
            .method = artifacts::KvMethod::Affine,
            .key_bits = 8,
            .value_bits = 4,
            .group_size = 64}}});
  EXPECT_EQ(found["layers"][0]["kv"]["method"], "state");
  EXPECT_GT(found["layers"][0]["kv"]["bytes"], 0);
  EXPECT_EQ(
      found["layers"][3]["kv"],
      (Json{
          {"method", "affine"},
          {"key_bits", 8.0},
          {"value_bits", 4.0},
          {"group_size", 64}}));
  EXPECT_EQ(
      found["layers"][7]["kv"], (Json{{"method", "dense"}, {"bits", 16}}));
  // Two layers of two heads of 64: codes with a bf16 scale and bias, and bf16.
  const std::size_t affine = 2 * (64 + 4) + 2 * (32 + 4);
  EXPECT_EQ(found["kv_bytes_per_token"], affine + 2 * 2 * 64 * 2);
  EXPECT_GT(found["sequence_bytes"], 0);
}

} // namespace
} // namespace optiq::server
