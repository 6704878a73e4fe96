#include "optiq/quant/inventory.h"

#include <string>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/memory_checkpoint.h"

namespace optiq::quant {
namespace {

TEST(TakeInventory, NamesWhatIsQuantizedAndWhatIsNot) {
  const Inventory inventory = take_inventory(testing::make_checkpoint(), 64);
  EXPECT_EQ(inventory.modules.size(), 10u);
  EXPECT_EQ(inventory.modules.front().name, "model.embed_tokens");
  EXPECT_EQ(
      inventory.modules.front().id.role, artifacts::ModuleRole::Embedding);
  EXPECT_EQ(inventory.modules.front().parameters, 96u * 128);
  EXPECT_EQ(inventory.kept_dense, std::vector<std::string>{"model.odd"});
  EXPECT_EQ(inventory.n_blocks, 3);
  EXPECT_EQ(
      inventory.parameters,
      96u * 128 + 3 * (128 + 64 * 128 + 2 * 256 * 128) + 8 * 40 + 64);
}

TEST(TakeInventory, RefusesGroupSizesAndQuantizedSources) {
  models::Checkpoint checkpoint = testing::make_checkpoint();
  for (const int group : {0, -64, 48, 63, 256}) {
    test::expect_error(
        ErrorKind::InvalidInput, {std::to_string(group), "32, 64 or 128"}, [&] {
          take_inventory(checkpoint, group);
        });
  }
  EXPECT_EQ(take_inventory(checkpoint, 128).modules.size(), 10u);
  checkpoint.tensors[0].name = "model.embed_tokens.scales";
  test::expect_error(ErrorKind::Unsupported, {"quantized already"}, [&] {
    take_inventory(checkpoint, 64);
  });
}

TEST(TakeInventory, AGroupSizeThatDividesNothingIsAnError) {
  models::Checkpoint checkpoint = testing::make_checkpoint();
  std::erase_if(checkpoint.tensors, [](const auto& tensor) {
    return tensor.name != "model.odd.weight";
  });
  test::expect_error(ErrorKind::InvalidInput, {"64", "no matrix"}, [&] {
    take_inventory(checkpoint, 64);
  });
}

} // namespace
} // namespace optiq::quant
