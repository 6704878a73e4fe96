#include <map>
#include <utility>

#include <gtest/gtest.h>

#include "support/tiny_model.h"

#include "optiq/eval/kl.h"
#include "optiq/kernels/quantize.h"
#include "optiq/models/checkpoint.h"
#include "optiq/quant/plan_selection.h"
#include "optiq/quant/planned_tensors.h"
#include "optiq/quant/sensitivity.h"

namespace optiq::quant {
namespace {

/** Every module of the tiny model at `bits`, `name` at `other`. */
artifacts::Plan plan_at(
    const models::Model& model,
    int bits,
    const std::string& name,
    int other) {
  artifacts::Plan plan;
  for (const models::Module& module : model.modules()) {
    plan.layers.push_back(
        {.name = module.name,
         .bits = module.name == name ? other : bits,
         .group_size = 64});
  }
  return plan;
}

class SelectPlan : public ::testing::Test {
 protected:
  artifacts::Plan select(std::vector<artifacts::Plan> plans) {
    return select(
        std::move(plans),
        [this, make = matrix_maker(checkpoint_, round_to_nearest)](
            const std::string& module, int bits, int group_size) {
          made_.push_back(module);
          return make(module, bits, group_size);
        });
  }

  artifacts::Plan select(
      std::vector<artifacts::Plan> plans,
      const MatrixMaker& make_matrix) {
    PlanJudge judge(setup_, make_matrix, calibration_);
    return select_plan(
               judge,
               std::move(plans),
               [this](const ProgressEvent& event) { last_event_ = event; })
        .plan;
  }

  io::ModelDirectory directory_ =
      io::ModelDirectory::open(testing::tiny_model_path());
  models::Checkpoint checkpoint_ = models::open_checkpoint(directory_);
  models::Setup setup_{testing::load_tiny_model(), kernels::Compute::Exact};
  const models::Model* model_ = setup_.model.get();
  Calibration calibration_{
      .name = "questions",
      .chunks = {testing::arithmetic_tokens(300)},
      .hash = {},
      .notices = {}};
  std::vector<std::string> made_;
  ProgressEvent last_event_;
};

TEST_F(SelectPlan, TakesTheLeastKlOfTheWholeModel) {
  const std::string embeddings = "language_model.model.embed_tokens";
  const auto best = select(
      {plan_at(*model_, 3, embeddings, 2),
       plan_at(*model_, 3, embeddings, 8),
       plan_at(*model_, 3, embeddings, 4)});
  EXPECT_EQ(best.layers.front().name, embeddings);
  EXPECT_EQ(best.layers.front().bits, 8);
  // Of the plans behind the first, what has another width.
  EXPECT_EQ(made_.size(), best.layers.size() + 2);
  EXPECT_EQ(last_event_.done, 3u);
  EXPECT_EQ(last_event_.total, 3u);
}

TEST_F(SelectPlan, MeasuresEqualWidthsOnceAndKeepsTheFirst) {
  auto first = plan_at(*model_, 4, "", 0);
  auto second = first;
  first.prior_weight = 0.25;
  second.prior_weight = 0.75;
  const auto best = select({first, second});
  EXPECT_EQ(best.prior_weight, 0.25);
  EXPECT_EQ(made_.size(), best.layers.size());
}

// Measured in two waves, in three plans and in the file: 8 bits of the
// embeddings occur everywhere.
TEST_F(SelectPlan, OneMemoryOfRoundedWeightsServesTheWholeConversion) {
  std::map<std::pair<std::string, int>, int> calls;
  const Rounder rounder = memoized(
      [&](const models::CheckpointTensor& weight, int bits, int group_size) {
        ++calls[{weight.name, bits}];
        return round_to_nearest(weight, bits, group_size);
      },
      std::size_t{64} << 20);
  const MatrixMaker make_matrix = matrix_maker(checkpoint_, rounder);
  const std::string embeddings = "language_model.model.embed_tokens";
  calibration_.chunks = {
      testing::arithmetic_tokens(20), testing::arithmetic_tokens(30)};
  SensitivityOptions options;
  options.modules = {embeddings, "language_model.model.layers.7.mlp.up_proj"};
  options.candidate_bits = {3, 8};
  options.max_state_bytes = 1; // a wave for each chunk
  SensitivityJournal journal;
  measure_sensitivity(setup_, make_matrix, calibration_, options, journal, {});
  const auto best = select(
      {plan_at(*model_, 3, embeddings, 8),
       plan_at(*model_, 3, "", 0),
       plan_at(*model_, 3, embeddings, 8)},
      make_matrix);
  for (const auto& tensor :
       planned_tensors(checkpoint_, best.layers, rounder)) {
    tensor.make();
  }
  // Every matrix at 3 bits, and two at 8.
  EXPECT_EQ(calls.size(), best.layers.size() + 2);
  for (const auto& [part, n] : calls) {
    EXPECT_EQ(n, 1) << part.first << " " << part.second;
  }
}

// The figure is what `eval` would say of the written model.
TEST_F(SelectPlan, ReportsTheMeanKlOverTokens) {
  const auto best = select({plan_at(*model_, 4, "", 0)});
  models::MatricesByName matrices;
  for (const auto& layer : best.layers) {
    const auto q = kernels::quantize_affine(
        checkpoint_.at(layer.name + ".weight").load(), 4, 64);
    matrices.emplace(
        layer.name,
        kernels::cpu_device().quantized(q.weight, q.scales, q.biases, 4, 64));
  }
  const auto scores = eval::measure_kl(
      setup_,
      setup_.with_model(model_->with_matrices(matrices)),
      calibration_.chunks,
      {});
  ASSERT_TRUE(best.measured_kl.has_value());
  EXPECT_DOUBLE_EQ(*best.measured_kl, scores.mean_kl);
  EXPECT_GT(scores.mean_kl, 0);
}

TEST_F(SelectPlan, TheJudgeMeasuresPartsAsItMeasuresAll) {
  calibration_.chunks.clear();
  for (int i = 0; i < 6; ++i) {
    calibration_.chunks.push_back(testing::arithmetic_tokens(20 + i));
  }
  const MatrixMaker make = matrix_maker(checkpoint_, round_to_nearest);
  PlanJudge judge(setup_, make, calibration_);
  // A matrix that stays as it is, beside others.
  const auto plan = plan_at(
      *model_, 4, "language_model.model.embed_tokens", artifacts::kDenseBits);
  const std::vector<double> all = judge.measure(plan);
  ASSERT_EQ(all.size(), 6u);
  for (const ChunkPart part :
       {ChunkPart::Held, ChunkPart::Screen, ChunkPart::Confirm}) {
    const std::vector<double> some = judge.measure(plan, part);
    const auto chunks = chunks_of(part, 6);
    ASSERT_EQ(some.size(), chunks.size());
    for (std::size_t i = 0; i < some.size(); ++i) {
      EXPECT_EQ(some[i], all[chunks[i]]);
    }
  }
  const auto quantized = judge.measure(plan_at(*model_, 4, "", 0));
  EXPECT_LT(judge.mean_kl(all), judge.mean_kl(quantized));
}

} // namespace
} // namespace optiq::quant
