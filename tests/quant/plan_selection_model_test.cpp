#include <gtest/gtest.h>

#include "support/tiny_model.h"

#include "optiq/eval/kl.h"
#include "optiq/models/checkpoint.h"
#include "optiq/quant/plan_selection.h"

namespace optiq::quant {
namespace {

/** Every module of the tiny model at `bits`, `name` at `other`. */
artifacts::Plan plan_at(
    const models::Model& model,
    int bits,
    const std::string& name,
    int other) {
  artifacts::Plan plan;
  plan.method = "optiq";
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
    return select_plan(
        setup_,
        [this](const std::string& module) {
          return checkpoint_.at(module + ".weight").load();
        },
        [this](const std::string& module) { released_.push_back(module); },
        calibration_,
        std::move(plans),
        [this](const ProgressEvent& event) { last_event_ = event; });
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
  std::vector<std::string> released_;
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
  EXPECT_EQ(released_.size(), 3 * best.layers.size());
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
  EXPECT_EQ(released_.size(), best.layers.size());
}

// The figure is what `eval` would say of the written model.
TEST_F(SelectPlan, ReportsTheMeanKlOverTokens) {
  const auto best = select({plan_at(*model_, 4, "", 0)});
  std::shared_ptr<const models::Model> quantized;
  for (const auto& layer : best.layers) {
    const auto q = kernels::quantize_affine(
        checkpoint_.at(layer.name + ".weight").load(), 4, 64);
    quantized = (quantized ? *quantized : *model_)
                    .with_matrix(
                        layer.name,
                        kernels::Matrix::quantized(
                            q.weight, q.scales, q.biases, 4, 64));
  }
  const auto scores = eval::measure_kl(
      setup_, setup_.with_model(quantized), calibration_.chunks, {});
  ASSERT_TRUE(best.measured_kl.has_value());
  EXPECT_EQ(*best.measured_kl, scores.mean_kl);
  EXPECT_GT(scores.mean_kl, 0);
}

} // namespace
} // namespace optiq::quant
