#include "optiq/artifacts/module_id.h"

#include <gtest/gtest.h>

namespace optiq::artifacts {
namespace {

TEST(ModuleId, FindsLayerAndPart) {
  struct Case {
    const char* name;
    int layer;
    const char* part;
  };
  const Case cases[] = {
      {"model.layers.3.mlp.up_proj", 3, "mlp.up_proj"},
      {"layers.12.self_attn.q_proj", 12, "self_attn.q_proj"},
      {"language_model.model.layers.0.mlp", 0, "mlp"},
      {"model.embed_tokens", -1, "embed_tokens"},
      {"lm_head", -1, "lm_head"},
      {"", -1, ""},
      {"model.layers", -1, "layers"},
      {"model.layers.", -1, ""},
      {"model.layers.7", -1, "7"}, // a layer without a part is not a module
      {"model.layers.x.mlp", -1, "mlp"},
      {"model.layers.-1.mlp", -1, "mlp"},
      {"model.layers.99999999999.mlp", -1, "mlp"}, // does not fit
      {"model.sublayers.2.mlp", -1, "mlp"}, // another word
      {"layers.a.layers.5.mlp", 5, "mlp"},
  };
  for (const Case& c : cases) {
    const ModuleId id = module_id(c.name);
    EXPECT_EQ(id.layer, c.layer) << c.name;
    EXPECT_EQ(layer_of(c.name), c.layer) << c.name;
    EXPECT_EQ(id.part, c.part) << c.name;
  }
}

TEST(ShortLeaf, DropsBlockAndProjection) {
  EXPECT_EQ(short_leaf("mlp.up_proj"), "up");
  EXPECT_EQ(short_leaf("linear_attn.in_proj_qkv"), "in_qkv");
  EXPECT_EQ(short_leaf("embed_tokens"), "embed_tokens");
  EXPECT_EQ(block_of("mlp.experts.up_proj"), "mlp.experts");
  EXPECT_EQ(block_of("embed_tokens"), "");
}

TEST(ModuleId, KnowsWhatAPartDoesUnderEveryPrefix) {
  struct Case {
    const char* part;
    ModuleRole role;
    ModuleKind kind;
  };
  const Case inner[] = {
      {"self_attn.q_proj", ModuleRole::Query, ModuleKind::Attention},
      {"self_attn.qkv_proj", ModuleRole::QueryKeyValue, ModuleKind::Attention},
      {"self_attn.k_norm", ModuleRole::KeyNorm, ModuleKind::Norm},
      {"linear_attn.in_proj_a", ModuleRole::DeltaDecay, ModuleKind::DeltaNet},
      {"linear_attn.out_proj", ModuleRole::DeltaOutput, ModuleKind::DeltaNet},
      {"mlp.gate_proj", ModuleRole::Gate, ModuleKind::Mlp},
      {"mlp.gate", ModuleRole::Router, ModuleKind::Router},
      {"mlp.switch_mlp.up_proj", ModuleRole::ExpertUp, ModuleKind::Expert},
      {"per_layer_projection",
       ModuleRole::LayerInputOutput,
       ModuleKind::LayerInput},
      {"post_attention_layernorm", ModuleRole::Norm, ModuleKind::Norm},
      {"q_proj", ModuleRole::Other, ModuleKind::Other}};
  for (const Case& c : inner) {
    const ModuleId id = module_id(std::string("layers.7.") + c.part);
    EXPECT_EQ(id.role, c.role) << c.part;
    EXPECT_EQ(kind_of(id.role), c.kind) << c.part;
    EXPECT_EQ(id, module_id(std::string("a.b.layers.7.") + c.part));
    EXPECT_EQ(id, module_of(std::string("layers.7.") + c.part + ".weight"));
  }
  const Case outer[] = {
      {"embed_tokens", ModuleRole::Embedding, ModuleKind::Embedding},
      {"embed_tokens_per_layer",
       ModuleRole::LayerInputEmbedding,
       ModuleKind::Embedding},
      {"norm", ModuleRole::Norm, ModuleKind::Norm},
      {"lm_head", ModuleRole::Head, ModuleKind::Head},
      {"xlm_head", ModuleRole::Other, ModuleKind::Other}};
  for (const Case& c : outer) {
    EXPECT_EQ(module_id(c.part).role, c.role) << c.part;
    EXPECT_EQ(kind_of(module_id(std::string("model.") + c.part).role), c.kind);
  }
}

TEST(SplitTensorName, KnowsTheLeavesOfMatrices) {
  const auto expect_split =
      [](const char* name, const char* module, const char* leaf) {
        const TensorName split = split_tensor_name(name);
        EXPECT_EQ(split.module, module) << name;
        EXPECT_EQ(split.leaf, leaf) << name;
      };
  expect_split("a.b.weight", "a.b", "weight");
  expect_split("a.scales", "a", "scales");
  expect_split("a.biases", "a", "biases");
  expect_split("a.bias", "a", "bias");
  expect_split("a.A_log", "a.A_log", "");
  expect_split("a.b_weight", "a.b_weight", "");
  expect_split("weight", "weight", "");
  expect_split(".weight", "", "weight");
  expect_split("", "", "");
  EXPECT_EQ(
      module_of("model.layers.0.linear_attn.A_log").role,
      ModuleRole::DeltaLogDecay);
}

TEST(ShortName, LeavesThePrefixOut) {
  const auto short_of = [](const char* name) {
    return short_name(module_id(name));
  };
  EXPECT_EQ(
      short_of("language_model.model.layers.3.mlp.up_proj"),
      "layers.3.mlp.up_proj");
  EXPECT_EQ(short_of("language_model.lm_head"), "lm_head");
  EXPECT_EQ(layer_path(3), "model.layers.3");
  EXPECT_EQ(layer_of(layer_path(3) + ".mlp"), 3);
}

TEST(Ranks, FollowTheUseInALayer) {
  EXPECT_LT(rank_of_block("self_attn"), rank_of_block("mlp"));
  EXPECT_LT(rank_of_block("mlp"), rank_of_block("other"));
  EXPECT_LT(rank_of_part("mlp.gate_proj"), rank_of_part("mlp.up_proj"));
  EXPECT_LT(rank_of_part("mlp.up_proj"), rank_of_part("mlp.down_proj"));
  EXPECT_EQ(rank_of_part("mlp.x"), rank_of_part("mlp.y"));
}

} // namespace
} // namespace optiq::artifacts
