#include "optiq/quant/static_rules.h"

#include <string>

#include <gtest/gtest.h>

namespace optiq::quant {
namespace {

TEST(StaticPriority, FollowsTheRules) {
  const auto name = [](int block, const char* rest) {
    return artifacts::module_id(
        "language_model.model.layers." + std::to_string(block) + "." + rest);
  };
  EXPECT_DOUBLE_EQ(
      static_priority(artifacts::module_id("model.embed_tokens"), 8), 1.0);
  EXPECT_DOUBLE_EQ(static_priority(artifacts::module_id("lm_head"), 8), 1.0);
  EXPECT_DOUBLE_EQ(static_priority(artifacts::module_id("projector"), 8), 0.30);
  EXPECT_DOUBLE_EQ(static_priority(name(0, "mlp.up_proj"), 8), 0.90);
  EXPECT_DOUBLE_EQ(static_priority(name(7, "self_attn.q_proj"), 8), 1.0);
  EXPECT_DOUBLE_EQ(static_priority(name(1, "mlp.up_proj"), 8), 0.65);
  EXPECT_DOUBLE_EQ(static_priority(name(6, "self_attn.q_proj"), 8), 0.95);
  // d = min(3, 4) = 3, edge = 3 / 4.
  EXPECT_DOUBLE_EQ(static_priority(name(3, "mlp.up_proj"), 8), 0.3375);
  EXPECT_DOUBLE_EQ(
      static_priority(name(3, "mlp.switch_mlp.up_proj"), 8), 0.2375);
  EXPECT_DOUBLE_EQ(static_priority(name(3, "mlp.gate"), 8), 0.7375);
  EXPECT_DOUBLE_EQ(static_error(0.5, 1024, 4), 2.0);
}

TEST(ProtectedModules, HeadEmbeddingsEdgesAndOuterAttention) {
  std::vector<artifacts::ModuleId> modules;
  for (const char* name :
       {"m.embed_tokens",
        "m.layers.0.linear_attn.out_proj",
        "m.layers.0.mlp.up_proj",
        "m.layers.1.linear_attn.out_proj",
        "m.layers.3.self_attn.q_proj",
        "m.layers.7.self_attn.q_proj",
        "m.layers.11.self_attn.q_proj",
        "m.layers.12.linear_attn.in_proj_a",
        "m.layers.12.mlp.up_proj",
        "lm_head"}) {
    modules.push_back(artifacts::module_id(name));
  }
  EXPECT_EQ(
      protected_modules(modules),
      (std::vector<bool>{
          true, true, false, false, true, false, true, true, false, true}));
}

} // namespace
} // namespace optiq::quant
