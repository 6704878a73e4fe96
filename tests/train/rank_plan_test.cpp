#include "optiq/train/rank_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/kernel_checks.h"
#include "support/scratch_folder.h"
#include "support/small_checkpoint.h"

#include "optiq/kernels/quantize.h"
#include "optiq/models/model.h"

namespace optiq::train {
namespace {

using ModelPointer = std::shared_ptr<const models::Model>;

/** 4 layers whose q_proj have 8 bits, gate_proj 4, up_proj 3, the others are
 * dense. */
ModelPointer make_model() {
  const test::ScratchFolder folder;
  testing::write_model(folder.path(), testing::sizes("llama"));
  const ModelPointer model =
      models::load_model(io::ModelDirectory::open(folder.path()));
  const std::map<std::string, int> widths{
      {"self_attn.q_proj", 8}, {"mlp.gate_proj", 4}, {"mlp.up_proj", 3}};
  models::MatricesByName matrices;
  for (const models::Module& module : model->modules()) {
    const auto found = widths.find(module.id.part);
    if (found != widths.end()) {
      const int bits = found->second;
      const auto q = kernels::quantize_affine(
          testing::normal_array(
              {module.matrix.out_features(), module.matrix.in_features()}, 1),
          bits,
          32);
      matrices.emplace(
          module.name,
          kernels::cpu_device().quantized(
              q.weight, q.scales, q.biases, bits, 32));
    }
  }
  return model->with_matrices(matrices);
}

std::map<std::string, ModuleRank> plan(
    const RankOptions& options,
    const std::optional<artifacts::Sensitivity>& sensitivity = {}) {
  std::map<std::string, ModuleRank> by_name;
  for (const ModuleRank& module :
       plan_ranks(*make_model(), sensitivity, options)) {
    by_name.emplace(module.module, module);
  }
  return by_name;
}

std::uint64_t total(const std::map<std::string, ModuleRank>& plan) {
  std::uint64_t sum = 0;
  for (const auto& [name, module] : plan) {
    sum += module.parameters();
  }
  return sum;
}

/** Of the quantized modules in the model's order: each has a quarter more than
 * the one before at its width, and another KL at 2 bits. */
artifacts::Sensitivity make_sensitivity() {
  artifacts::Sensitivity sensitivity;
  double kl = 1e-3;
  for (const models::Module& module : make_model()->modules()) {
    if (module.matrix.is_quantized()) {
      sensitivity.layers.push_back(
          {.name = module.name, .kl = {{module.matrix.bits(), kl}, {2, 9.0}}});
      kl *= 1.25;
    }
  }
  return sensitivity;
}

const std::vector<std::string> kQuantized{"q_proj", "mlp.gate_proj", "up_proj"};

TEST(RankPlan, FollowsBits) {
  const auto ranks = plan({.rank = 8, .alpha = 32.f});
  EXPECT_EQ(ranks.size(), 28U); // 7 linears of 4 layers, no embedding
  const ModuleRank& q = ranks.at("model.layers.2.self_attn.q_proj");
  EXPECT_EQ(q.rank, 16);
  EXPECT_FLOAT_EQ(q.scale, 2.f);
  EXPECT_EQ(q.in, testing::kHidden);
  EXPECT_EQ(q.out, 64);
  EXPECT_EQ(ranks.at("model.layers.0.mlp.gate_proj").rank, 8);
  EXPECT_EQ(ranks.at("model.layers.0.mlp.up_proj").rank, 6);
  EXPECT_EQ(ranks.at("model.layers.0.mlp.down_proj").rank, 8); // dense
  EXPECT_EQ(plan({.rank = 1}).at("model.layers.0.mlp.up_proj").rank, 2);
}

TEST(RankPlan, ConstantAndScales) {
  for (const auto& [name, module] :
       plan({.rank = 5, .scaling = RankScaling::Constant, .scale = 3.f})) {
    EXPECT_EQ(module.rank, 5) << name;
    EXPECT_FLOAT_EQ(module.scale, 3.f) << name;
  }
  const auto stabilized =
      plan({.rank = 8, .alpha = 16.f, .is_rank_stabilized = true});
  EXPECT_FLOAT_EQ(stabilized.at("model.layers.0.self_attn.q_proj").scale, 4.f);
}

TEST(RankPlan, FollowsKlWithinLimits) {
  const auto sensitivity = make_sensitivity();
  const auto ranks = plan(
      {.rank = 8, .scaling = RankScaling::ByKl, .target_modules = kQuantized},
      sensitivity);
  ASSERT_EQ(ranks.size(), 12U);
  // In the model's order KL grows by a quarter from one to the next: the upper
  // median is the seventh.
  const double median = sensitivity.layers[6].kl.rbegin()->second;
  for (const auto& layer : sensitivity.layers) {
    const double factor =
        std::clamp(layer.kl.rbegin()->second / median, 0.5, 2.0);
    EXPECT_EQ(ranks.at(layer.name).rank, std::ceil(8 * factor)) << layer.name;
  }
}

TEST(RankPlan, WhatIsProtectedAndNotMeasuredHasTheRankItself) {
  auto sensitivity = make_sensitivity();
  const std::string missing = sensitivity.layers.front().name;
  sensitivity.layers.erase(sensitivity.layers.begin());
  const RankOptions options{
      .rank = 8, .scaling = RankScaling::ByKl, .target_modules = kQuantized};
  const auto ranks = plan(options, sensitivity);
  EXPECT_EQ(ranks.at(missing).rank, 8);
  EXPECT_EQ(ranks.at(sensitivity.layers.back().name).rank, 16);
  sensitivity.layers.clear();
  test::expect_error(ErrorKind::InvalidInput, {"by_kl", "found none"}, [&] {
    plan(options, sensitivity);
  });
}

TEST(RankPlan, FillsABudget) {
  for (const int rank : {1, 4, 8, 13}) {
    RankOptions options{.rank = rank, .scaling = RankScaling::Constant};
    const std::uint64_t budget = total(plan(options));
    options.scaling = RankScaling::ByBits;
    EXPECT_TRUE(rank == 1 || total(plan(options)) != budget) << rank;
    options.matches_budget = true;
    const auto matched = plan(options);
    EXPECT_LE(total(matched), budget) << rank;
    // The smallest module has 32 + 32 parameters a rank.
    EXPECT_GT(total(matched) + 64, budget) << rank;
    if (rank >= 4) {
      EXPECT_GT(
          matched.at("model.layers.0.self_attn.q_proj").rank,
          matched.at("model.layers.0.mlp.up_proj").rank);
    }
  }
}

TEST(RankPlan, ChoosesModulesAndLayers) {
  const auto ranks =
      plan({.target_modules = {"v_proj", "mlp.up_proj"}, .n_layers = 1});
  EXPECT_EQ(ranks.size(), 2U);
  EXPECT_TRUE(ranks.contains("model.layers.3.self_attn.v_proj"));
  EXPECT_TRUE(ranks.contains("model.layers.3.mlp.up_proj"));
}

TEST(RankPlan, RefusesWhatItCannotPlan) {
  const auto refuse = [](std::initializer_list<std::string> parts,
                         const RankOptions& options,
                         const std::optional<artifacts::Sensitivity>& s = {}) {
    test::expect_error(
        ErrorKind::InvalidInput, parts, [&] { plan(options, s); });
  };
  refuse({"rank", "found 0"}, {.rank = 0});
  refuse({"'w_proj'"}, {.target_modules = {"q_proj", "w_proj"}});
  refuse({"sensitivity.json"}, {.scaling = RankScaling::ByKl});
  refuse(
      {"by_kl", "layers.0.self_attn.k_proj", "32 bits"},
      {.scaling = RankScaling::ByKl},
      make_sensitivity());
  test::expect_error(ErrorKind::InvalidInput, {"'by_size'"}, [] {
    rank_scaling_of("by_size");
  });
  EXPECT_EQ(rank_scaling_of("by_kl"), RankScaling::ByKl);
}

} // namespace
} // namespace optiq::train
