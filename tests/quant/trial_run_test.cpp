#include "optiq/quant/trial_run.h"

#include <limits>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"
#include "support/small_checkpoint.h"

#include "optiq/io/safetensors.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

/** Writes the model again, with one value of one tensor replaced. */
void plant(
    const test::ScratchFolder& folder,
    const std::string& name,
    float value) {
  const auto source = io::SafetensorsFile::open(folder / "model.safetensors");
  std::vector<io::TensorToWrite> tensors;
  for (const io::TensorInfo& tensor : source.tensors()) {
    mx::array values = mx::contiguous(mx::copy(source.load(tensor)));
    mx::eval(values);
    if (tensor.name == name) {
      io::mutable_floats(values)[0] = value;
    }
    tensors.push_back(
        {tensor.name, tensor.dtype, tensor.shape, [values] { return values; }});
  }
  std::filesystem::create_directory(folder / "planted");
  io::write_safetensors(folder / "planted" / "model.safetensors", tensors, {});
  std::filesystem::copy(folder / "config.json", folder / "planted");
}

TEST(RunOneToken, AcceptsEveryFamilysLayers) {
  for (const auto& config :
       {testing::sizes("llama"),
        testing::sizes("qwen3"),
        testing::gemma(40),
        testing::gemma4()}) {
    const test::ScratchFolder folder;
    testing::write_model(folder.path(), config);
    run_one_token(io::ModelDirectory::open(folder.path()));
  }
}

TEST(RunOneToken, NamesTheLayerWhereNumbersEnd) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinite = std::numeric_limits<float>::infinity();
  const auto expect_found =
      [](const std::string& tensor, float value, const char* place) {
        const test::ScratchFolder folder;
        testing::write_model(folder.path(), testing::sizes("llama"));
        plant(folder, tensor, value);
        test::expect_error(ErrorKind::Corrupt, {place, "not finite"}, [&] {
          run_one_token(io::ModelDirectory::open(folder / "planted"));
        });
      };
  expect_found("model.embed_tokens.weight", nan, "the embeddings");
  expect_found("model.layers.2.mlp.down_proj.weight", nan, "layer 2");
  expect_found("model.layers.3.self_attn.v_proj.weight", infinite, "layer 3");
  expect_found("model.norm.weight", nan, "the logits");
}

} // namespace
} // namespace optiq::quant
