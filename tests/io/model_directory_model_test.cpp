#include <cmath>
#include <cstdlib>

#include <gtest/gtest.h>

#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/io/model_directory.h"

namespace optiq::io {
namespace {

std::filesystem::path test_model() {
  return std::getenv("OPTIQ_TEST_MODEL");
}

TEST(ModelDirectoryModel, ReadsEveryTensorOfBothShards) {
  const ModelDirectory model = ModelDirectory::open(test_model());
  EXPECT_EQ(model.config().at("model_type"), "qwen3_5");
  EXPECT_EQ(model.file_bytes(), 11863272u + 6707024u);
  const auto index =
      artifacts::read_json_file(test_model() / "model.safetensors.index.json");
  EXPECT_EQ(model.tensors().size(), index.at("weight_map").size());
  for (const auto& [name, shard] : index.at("weight_map").items()) {
    ASSERT_TRUE(model.has(name)) << name;
    const mx::array tensor = model.load(name);
    EXPECT_EQ(tensor.shape(), model.info(name).shape) << name;
    EXPECT_EQ(tensor.dtype(), model.info(name).dtype) << name;
    EXPECT_TRUE(tensor.is_available()) << name;
  }
}

TEST(ModelDirectoryModel, ValuesAreFiniteAndSurviveDrop) {
  const ModelDirectory model = ModelDirectory::open(test_model());
  for (const TensorInfo& info : model.tensors()) {
    if (info.dtype != mx::bfloat16) {
      continue;
    }
    const mx::array tensor = model.load(info.name);
    const auto* data = tensor.data<mx::bfloat16_t>();
    const auto sum = [&] {
      double total = 0;
      for (std::size_t i = 0; i < tensor.size(); ++i) {
        total += std::abs(static_cast<double>(static_cast<float>(data[i])));
      }
      return total;
    };
    const double before = sum();
    ASSERT_TRUE(std::isfinite(before)) << info.name;
    model.drop(info.name);
    EXPECT_EQ(sum(), before) << info.name; // read again from the file
  }
}

TEST(ModelDirectoryModel, MissingTensorIsNamed) {
  const ModelDirectory model = ModelDirectory::open(test_model());
  try {
    model.info("no.such.tensor");
    FAIL() << "expected NotFound";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::NotFound);
    EXPECT_NE(
        std::string(error.what()).find("no.such.tensor"), std::string::npos);
  }
}

} // namespace
} // namespace optiq::io
