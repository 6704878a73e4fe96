#include "optiq/artifacts/model_map.h"

#include <numeric>

#include <gtest/gtest.h>

namespace optiq::artifacts {
namespace {

TEST(GridOf, OrdersPartsAsALayerUsesThem) {
  const std::vector<std::string> names{
      "embed_tokens",
      "layers.0.mlp.down_proj",
      "layers.0.other.b",
      "layers.0.self_attn.k_proj",
      "layers.2.mlp.up_proj",
      "layers.2.other.a",
      "layers.2.self_attn.k_proj",
      "layers.2.self_attn.q_proj"};
  const ModuleGrid grid = grid_of(names);
  EXPECT_EQ(
      grid.parts,
      (std::vector<std::string>{
          "self_attn.q_proj",
          "self_attn.k_proj",
          "mlp.up_proj",
          "mlp.down_proj",
          "other.b",
          "other.a"}));
  EXPECT_EQ(grid.layers, (std::vector<int>{0, 2}));
  EXPECT_EQ(grid.cells[0], (std::vector<int>{-1, 3, -1, 1, 2, -1}));
  EXPECT_EQ(grid.cells[1], (std::vector<int>{7, 6, 4, -1, -1, 5}));
  EXPECT_EQ(grid.outside, (std::vector<int>{0}));
}

ModelMap small_map() {
  ModelMap map;
  map.modules = {
      {"embed_tokens", 8, 64, 640, 640, 40},
      {"layers.0.mlp.up", 4, 64, 1280, 640, 80},
      {"layers.1.mlp.up", 16, 0, 1280, 2560, 0}};
  map.other_bytes = 10;
  map.other_parameters = 5;
  map.extra_bytes = 20;
  map.extra_parameters = 10;
  map.header_bytes = 30;
  map.sidecar_bytes = 99999;
  return map;
}

TEST(ModelMap, SharesAddUpToTheFile) {
  const ModelMap map = small_map();
  EXPECT_EQ(file_bytes(map), 640u + 40 + 640 + 80 + 2560 + 10 + 20 + 30);
  EXPECT_EQ(parameters(map), 640u + 1280 + 1280 + 5 + 10);
  std::uint64_t by_kind = 0;
  for (const SizeShare& share : sizes_by_kind(map)) {
    by_kind += share.bytes;
  }
  EXPECT_EQ(by_kind, file_bytes(map));
  std::uint64_t by_width = 0;
  for (const WidthShare& share : sizes_by_width(map)) {
    by_width += share.bytes;
  }
  EXPECT_EQ(by_width, file_bytes(map));
}

TEST(ModelMap, MeanCodeBitsCountsQuantizedMatricesWeighted) {
  ModelMap map = small_map();
  EXPECT_DOUBLE_EQ(mean_code_bits(map), (640 * 8 + 1280 * 4) / 1920.0);
  map.modules.erase(map.modules.begin(), map.modules.begin() + 2);
  EXPECT_DOUBLE_EQ(mean_code_bits(map), 16.0);
  map.modules.clear();
  EXPECT_EQ(mean_code_bits(map), 0.0);
}

TEST(ModelMap, JsonHasBothWidthsAndEveryModule) {
  const Json json = to_json(small_map());
  EXPECT_EQ(json["file_bytes"], 4020);
  EXPECT_DOUBLE_EQ(json["file_bpw"].get<double>(), 8.0 * 4020 / 3215);
  EXPECT_EQ(json["modules"].size(), 3u);
  EXPECT_EQ(json["modules"]["layers.0.mlp.up"]["bits"], 4);
  EXPECT_EQ(json["modules"]["layers.0.mlp.up"]["bytes"], 720);
}

} // namespace
} // namespace optiq::artifacts
