#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"
#include "support/tiny_model.h"

#include "optiq/quant/model_writer.h"
#include "optiq/quant/plan.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

struct Written {
  test::ScratchFolder folder;
  io::ModelDirectory source =
      io::ModelDirectory::open(testing::tiny_model_path());
  models::Checkpoint checkpoint = models::open_checkpoint(source);
  artifacts::Metadata metadata;
  std::optional<artifacts::Sensitivity> sensitivity;

  Written() {
    PlanOptions options{
        .method = artifacts::PlanMethod::Static, .target_bpw = 5.0};
    options.candidate_bits = {3, 4, 8};
    validate(options);
    metadata.tool_version = "1";
    metadata.base_model = "tiny";
    metadata.plan =
        make_plan(checkpoint, take_inventory(checkpoint, 64), options, {});
    write_model(model(), folder.path(), {});
  }
  ModelToWrite model() const {
    return {source, checkpoint, metadata, sensitivity};
  }
};

TEST(WriteModel, EveryTensorIsTheSourcesOrItsQuantization) {
  const Written written;
  verify_model(written.model(), written.folder.path());
  const auto directory = io::ModelDirectory::open(written.folder.path());
  std::map<std::string, int> bits;
  for (const auto& layer : written.metadata.plan.layers) {
    bits[layer.name + ".weight"] = layer.bits;
  }
  for (const auto& tensor : written.checkpoint.tensors) {
    if (tensor.role != models::TensorRole::Weight) {
      continue;
    }
    if (!bits.contains(tensor.name)) {
      EXPECT_TRUE(mx::array_equal(directory.load(tensor.name), tensor.load())
                      .item<bool>())
          << tensor.name;
      continue;
    }
    const auto parts = mx::quantize(tensor.load(), 64, bits[tensor.name]);
    const std::string module =
        tensor.name.substr(0, tensor.name.rfind(".weight"));
    const char* names[] = {".weight", ".scales", ".biases"};
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(mx::array_equal(directory.load(module + names[i]), parts[i])
                      .item<bool>())
          << module << names[i];
    }
  }
}

TEST(WriteModel, KeepsTheMtpHeadQuantizedBesideTheModel) {
  const Written written;
  const auto mtp =
      io::SafetensorsFile::open(written.folder / "optiq" / "mtp.safetensors");
  const int bits = default_bits(written.metadata.plan);
  std::map<std::string, mx::Shape> shapes;
  for (const auto& tensor : mtp.tensors()) {
    shapes.emplace(tensor.name, tensor.shape);
  }
  EXPECT_EQ(shapes.at("mtp.fc.weight"), (mx::Shape{256, 512}));
  EXPECT_EQ(
      shapes.at("mtp.layers.0.mlp.up_proj.weight"),
      (mx::Shape{768, 256 * bits / 32}));
  EXPECT_TRUE(shapes.contains("mtp.layers.0.mlp.up_proj.scales"));
  EXPECT_EQ(shapes.size(), 15u + 2 * 7);
  const auto config = artifacts::read_json_file(written.folder / "config.json");
  EXPECT_EQ(config.at("mtp_tensor_count"), shapes.size());
  EXPECT_EQ(config.at("mtp_num_hidden_layers"), 1);
  EXPECT_EQ(
      config.at("mtp_policy"),
      "optiq-int" + std::to_string(bits) + "-prequantized-gs64");
}

TEST(VerifyModel, FindsEveryDifferenceFromThePlan) {
  Written written;
  const auto expect_found = [&](const char* culprit) {
    test::expect_error(ErrorKind::Internal, {culprit}, [&] {
      verify_model(written.model(), written.folder.path());
    });
  };
  const artifacts::Metadata good = written.metadata;
  written.metadata.plan.file_bytes += 1;
  expect_found("model*.safetensors");
  written.metadata = good;
  written.metadata.plan.layers[5].bits = 2;
  expect_found(good.plan.layers[5].name.c_str());
  written.metadata = good;
  written.metadata.base_model = "other";
  expect_found("optiq/metadata.json");
  written.metadata = good;
  written.sensitivity.emplace();
  expect_found("optiq/sensitivity.json");
}

} // namespace
} // namespace optiq::quant
