#include "optiq/quant/planned_tensors.h"

#include <gtest/gtest.h>

#include "support/memory_checkpoint.h"

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

} // namespace
} // namespace optiq::quant
