#include "optiq/quant/scale_tuning.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"
#include "support/small_checkpoint.h"

#include "optiq/base/thread_pool.h"
#include "optiq/eval/kl.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;
using artifacts::Json;

/** A small llama, uneven chunks, and what divides by 32 at 3 bits. */
struct Fixture {
  test::ScratchFolder folder;
  std::unique_ptr<io::ModelDirectory> directory;
  std::unique_ptr<models::Checkpoint> checkpoint;
  std::unique_ptr<models::Setup> setup;
  Calibration calibration;
  std::vector<artifacts::LayerBits> layers;
  TuningOptions options{.steps = 20, .batch_chunks = 2, .seed = 5};

  explicit Fixture(bool is_tied = true) {
    Json config = testing::sizes("llama");
    config["tie_word_embeddings"] = is_tied;
    testing::write_model(
        folder.path(),
        config,
        is_tied ? std::vector<std::string>{}
                : std::vector<std::string>{"lm_head.weight"});
    directory = std::make_unique<io::ModelDirectory>(
        io::ModelDirectory::open(folder.path()));
    checkpoint = std::make_unique<models::Checkpoint>(
        models::open_checkpoint(*directory));
    setup = std::make_unique<models::Setup>(
        models::load_model(*directory), kernels::Compute::Exact);
    std::mt19937 random(2);
    std::uniform_int_distribution<std::int32_t> token(0, testing::kVocab - 1);
    for (const int n : {70, 70, 33, 70, 70, 9, 70, 70}) {
      calibration.chunks.emplace_back();
      for (int i = 0; i < n; ++i) {
        calibration.chunks.back().push_back(token(random));
      }
    }
    for (const models::Module& module : setup->model->modules()) {
      if (module.matrix.in_features() % 32 == 0) {
        layers.push_back({.name = module.name, .bits = 3, .group_size = 32});
      }
    }
  }

  TuningResult tune(const ProgressSink& progress = {}) const {
    return tune_scales(
        *setup,
        *checkpoint,
        layers,
        round_to_nearest,
        calibration,
        options,
        progress);
  }

  /** Mean over held-out chunks of the KL that `rounder` makes. */
  double held_out_kl(const Rounder& rounder) const {
    models::MatricesByName matrices;
    const MatrixMaker make = matrix_maker(*checkpoint, rounder);
    for (const artifacts::LayerBits& layer : layers) {
      matrices.emplace(layer.name, make(layer.name, 3, 32));
    }
    const std::vector<std::vector<std::int32_t>> rows{
        calibration.chunks[3], calibration.chunks[7]};
    return eval::measure_kl(
               *setup,
               setup->with_model(setup->model->with_matrices(matrices)),
               rows,
               {})
        .mean_row_kl;
  }
};

bool same_bytes(const mx::array& a, const mx::array& b) {
  return a.nbytes() == b.nbytes() && a.dtype() == b.dtype() &&
      std::memcmp(a.data<char>(), b.data<char>(), a.nbytes()) == 0;
}

void expect_same(const TuningResult& a, const TuningResult& b) {
  EXPECT_EQ(a.scores.best_step, b.scores.best_step);
  EXPECT_EQ(a.scores.kl_after, b.scores.kl_after);
  ASSERT_EQ(a.weights.size(), b.weights.size());
  for (const auto& [name, weights] : a.weights) {
    EXPECT_TRUE(same_bytes(weights.scales, b.weights.at(name).scales)) << name;
    EXPECT_TRUE(same_bytes(weights.biases, b.weights.at(name).biases)) << name;
  }
}

TEST(ScaleTuning, HelpsOnTextThatItDoesNotLearnFrom) {
  for (const bool is_tied : {true, false}) {
    const Fixture fixture(is_tied);
    std::vector<std::uint64_t> done;
    const TuningResult result = fixture.tune([&](const ProgressEvent& event) {
      EXPECT_EQ(event.stage, "tuning");
      EXPECT_EQ(event.total, 20u);
      done.push_back(event.done);
    });
    EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
    EXPECT_EQ(done.back(), 20u);
    EXPECT_GT(result.scores.best_step, 0);
    EXPECT_LT(result.scores.kl_after, result.scores.kl_before);
    ASSERT_EQ(result.weights.size(), fixture.layers.size());
    // What was measured is what the file will have.
    EXPECT_NEAR(
        fixture.held_out_kl(round_to_nearest),
        result.scores.kl_before,
        1e-6 * result.scores.kl_before);
    EXPECT_NEAR(
        fixture.held_out_kl(tuned_rounder(result.weights, round_to_nearest)),
        result.scores.kl_after,
        1e-6 * result.scores.kl_before);
  }
}

TEST(ScaleTuning, LeavesCodesAndTypes) {
  const Fixture fixture;
  const TuningResult result = fixture.tune();
  for (const artifacts::LayerBits& layer : fixture.layers) {
    const kernels::AffineWeights before =
        round_to_nearest(fixture.checkpoint->at(layer.name + ".weight"), 3, 32);
    const kernels::AffineWeights& after = result.weights.at(layer.name);
    EXPECT_TRUE(same_bytes(before.weight, after.weight)) << layer.name;
    EXPECT_EQ(before.scales.dtype(), after.scales.dtype());
    EXPECT_FALSE(same_bytes(before.scales, after.scales)) << layer.name;
  }
}

TEST(ScaleTuning, IsTheSameWithOtherThreadsAndLayersThatRunAgain) {
  Fixture fixture;
  fixture.options.steps = 4;
  const TuningResult one = fixture.tune();
  EXPECT_GT(one.scores.best_step, 0);
  const int threads = ThreadPool::shared().size();
  ThreadPool::shared().resize(threads == 1 ? 3 : 1);
  expect_same(one, fixture.tune());
  ThreadPool::shared().resize(threads);
  fixture.options.max_kept_bytes = 0;
  expect_same(one, fixture.tune());
}

TEST(ScaleTuning, OfAnotherSeedIsAnother) {
  Fixture fixture;
  fixture.options.steps = 3;
  const TuningResult one = fixture.tune();
  fixture.options.seed = 6;
  EXPECT_NE(one.scores.kl_after, fixture.tune().scores.kl_after);
}

TEST(ScaleTuning, ThatHelpsNobodyChangesNothing) {
  Fixture fixture;
  fixture.options.learning_rate = 1.f; // scales beyond all reason
  const TuningResult result = fixture.tune();
  EXPECT_EQ(result.scores.best_step, 0);
  EXPECT_EQ(result.scores.kl_after, result.scores.kl_before);
  EXPECT_TRUE(result.weights.empty());
}

TEST(ScaleTuning, NeedsTextToStopBy) {
  Fixture fixture;
  fixture.calibration.chunks.resize(1);
  test::expect_error(
      ErrorKind::InvalidInput, {"1 chunks", "expected two"}, [&] {
        fixture.tune();
      });
}

} // namespace
} // namespace optiq::quant
