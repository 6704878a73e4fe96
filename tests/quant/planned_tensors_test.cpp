#include "optiq/quant/planned_tensors.h"

#include <gtest/gtest.h>

#include "support/memory_checkpoint.h"

#include "optiq/quant/inventory.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

TEST(QuantizedTensors, AreMlxsAndLetGoOfTheirMemory) {
  const models::Checkpoint checkpoint = testing::make_checkpoint();
  const auto& tensor = checkpoint.at("model.layers.1.mlp.up_proj.weight");
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    const auto expected = mx::quantize(tensor.load(), 64, bits);
    const auto parts = quantized_tensors(tensor, bits, 64);
    ASSERT_EQ(parts.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) {
      const mx::array made = parts[i].make();
      EXPECT_EQ(made.dtype(), parts[i].dtype);
      EXPECT_EQ(made.shape(), parts[i].shape);
      EXPECT_TRUE(mx::array_equal(made, expected[i]).item<bool>())
          << bits << " " << parts[i].name;
    }
  }
}

TEST(PlannedTensors, AreRoundedByTheRounderThatIsGiven) {
  const models::Checkpoint checkpoint = testing::make_checkpoint();
  const std::string module = "model.layers.1.mlp.up_proj";
  std::vector<std::string> rounded;
  const auto tensors = planned_tensors(
      checkpoint,
      std::vector<artifacts::LayerBits>{{.name = module, .bits = 3}},
      [&](const models::CheckpointTensor& weight, int bits, int group_size) {
        rounded.push_back(weight.name);
        return round_to_nearest(weight, bits, group_size);
      });
  EXPECT_EQ(tensors.size(), 15u + 2); // one becomes three
  std::uint64_t bytes = 0;
  for (const io::TensorToWrite& tensor : tensors) {
    const mx::array made = tensor.make();
    bytes += tensor.name.starts_with(module) ? made.nbytes() : 0;
  }
  EXPECT_EQ(rounded, std::vector<std::string>{module + ".weight"});
  EXPECT_EQ(bytes, quantized_bytes(weight_of(checkpoint, module), 3, 64));
}

} // namespace
} // namespace optiq::quant
