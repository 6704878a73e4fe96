#include "optiq/train/lora_run.h"

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"
#include "support/small_checkpoint.h"

#include "optiq/adapters/adapter_files.h"
#include "optiq/base/file.h"

/** Checkpoints, the best one, the end, on a small model. */
namespace optiq::train {
namespace {

namespace fs = std::filesystem;
using testing::kVocab;

const models::Setup& small_setup() {
  static const models::Setup setup = [] {
    const test::ScratchFolder folder;
    testing::write_model(folder.path(), testing::sizes("llama"));
    return models::Setup(
        models::load_model(io::ModelDirectory::open(folder.path())),
        kernels::Compute::Exact);
  }();
  return setup;
}

/** Each token is followed by one that it tells, or by any. */
std::vector<Example> make_examples(int n, unsigned seed, bool is_random) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<std::int32_t> any(0, kVocab - 1);
  std::vector<Example> examples(n);
  for (Example& example : examples) {
    for (int t = 0; t < 4; ++t) {
      const std::int32_t token = any(random);
      example.tokens.push_back(token);
      example.labels.push_back(
          is_random ? any(random) : (3 * token + 1) % kVocab);
      example.weights.push_back(1.f);
    }
  }
  return examples;
}

LoraRunOptions options_at(const fs::path& output) {
  return {
      .output = output,
      .trainer =
          {.learning_rate = {.peak = 1e-2f, .total_steps = 12},
           .dropout = 0.1f,
           .batch_size = 2,
           .seed = 3},
      .save_every = 4,
      .base_model = "org/base",
      .settings = {{"rank", 3}}};
}

LoraRunResult run(
    const LoraRunOptions& options,
    const ProgressSink& sink = {},
    bool validates = true,
    bool is_valid_random = false) {
  static const auto train = make_examples(20, 1, false);
  const auto valid = make_examples(6, 2, is_valid_random);
  return run_lora(
      small_setup(),
      plan_ranks(*small_setup().model, {}, {.rank = 3}),
      train,
      validates ? std::span<const Example>(valid) : std::span<const Example>(),
      options,
      sink);
}

/** Cancels when a step is done. */
ProgressSink cancel_at(std::uint64_t step) {
  return [step](const ProgressEvent& event) {
    if (event.done == step) {
      fail(ErrorKind::Cancelled, "stopped");
    }
  };
}

std::string content(const fs::path& file) {
  return read_text_file(file, 1 << 24);
}

void expect_same_adapter(const fs::path& a, const fs::path& b) {
  for (const char* file :
       {"adapter_config.json",
        "adapter_model.safetensors",
        "adapters.safetensors",
        "optiq_lora_config.json"}) {
    EXPECT_TRUE(content(a / file) == content(b / file)) << file;
  }
}

TEST(LoraRun, WritesAnAdapterWithItsLogAndRecord) {
  const test::ScratchFolder folder;
  const fs::path output = folder.path() / "out";
  const LoraRunResult result = run(options_at(output));
  ASSERT_EQ(result.log.size(), 12U);
  EXPECT_EQ(result.log[3].valid_loss.has_value(), true);
  EXPECT_EQ(result.log[4].valid_loss.has_value(), false);
  const auto files = adapters::open_adapter(output, *small_setup().model);
  EXPECT_EQ(files.parameters(), result.parameters);
  EXPECT_EQ(files.base_model, "org/base");
  const artifacts::Json record = adapters::record_of(files);
  EXPECT_EQ(record.at("rank"), 3);
  EXPECT_EQ(record.at("end"), "all steps");
  EXPECT_EQ(record.at("best_step"), artifacts::best_step(result.log)->step);
  EXPECT_EQ(
      artifacts::read_training_log(output / "train_log.jsonl").size(), 12U);
  EXPECT_FALSE(fs::exists(output / adapters::kTrainingStateFile));
}

TEST(LoraRun, InterruptedAnywhereItGoesOnToTheSameBytes) {
  const test::ScratchFolder folder;
  const fs::path whole = folder.path() / "whole";
  run(options_at(whole));
  const fs::path again = folder.path() / "again";
  run(options_at(again));
  expect_same_adapter(whole, again);
  for (const int step : {1, 4, 12}) {
    SCOPED_TRACE(step);
    const fs::path output = folder.path() / std::to_string(step);
    LoraRunOptions options = options_at(output);
    test::expect_error(
        ErrorKind::Cancelled,
        {"stopped", "step " + std::to_string(step) + " of 12", "--resume"},
        [&] { run(options, cancel_at(step)); });
    EXPECT_TRUE(fs::exists(output / adapters::kTrainingStateFile));
    options.resume = true;
    EXPECT_FALSE(run(options).was_finished);
    expect_same_adapter(whole, output);
    EXPECT_TRUE(run(options).was_finished);
    expect_same_adapter(whole, output);
  }
}

TEST(LoraRun, KeepsTheBestByValidationAndStopsWithoutABetterOne) {
  const test::ScratchFolder folder;
  // What is learned is of no use for random labels, which soon shows.
  LoraRunOptions options = options_at(folder.path() / "out");
  options.trainer.learning_rate = {
      .peak = 3e-2f, .decay = Decay::Constant, .total_steps = 200};
  options.early_stopping = 3;
  const LoraRunResult result = run(options, {}, true, true);
  EXPECT_TRUE(result.is_stopped_early);
  ASSERT_LT(result.log.size(), 200U);
  const int best = artifacts::best_step(result.log)->step;
  EXPECT_EQ(static_cast<int>(result.log.size()), best + 3 * 4);
  // The adapter is that of the step: what training that long gives.
  LoraRunOptions shorter = options;
  shorter.output = folder.path() / "short";
  shorter.early_stopping = 0;
  shorter.trainer.learning_rate.total_steps = best;
  run(shorter, {}, false);
  EXPECT_TRUE(
      content(options.output / "adapter_model.safetensors") ==
      content(shorter.output / "adapter_model.safetensors"));
}

TEST(LoraRun, RefusesWhatItCannotGoOnFrom) {
  const test::ScratchFolder folder;
  LoraRunOptions options = options_at(folder.path() / "out");
  options.resume = true;
  test::expect_error(ErrorKind::NotFound, {"no training to go on from"}, [&] {
    run(options);
  });
  options.resume = false;
  EXPECT_THROW(run(options, cancel_at(6)), Error);
  test::expect_error(
      ErrorKind::InvalidInput, {"already exists", "--overwrite"}, [&] {
        run(options);
      });
  options.resume = true;
  options.settings["rank"] = 4;
  test::expect_error(
      ErrorKind::InvalidInput, {"trained with rank 3, expected 4"}, [&] {
        run(options);
      });
  options.settings["rank"] = 3;
  test::expect_error(ErrorKind::InvalidInput, {"valid_hash"}, [&] {
    run(options, {}, true, true);
  });
  options.early_stopping = 1;
  test::expect_error(ErrorKind::InvalidInput, {"valid.jsonl"}, [&] {
    run(options, {}, false);
  });
}

TEST(LoraRun, ALogThatDoesNotFitIsFound) {
  const test::ScratchFolder folder;
  LoraRunOptions options = options_at(folder.path() / "out");
  run(options);
  options.resume = true;
  fs::remove(options.output / "train_log.jsonl");
  test::expect_error(ErrorKind::Corrupt, {"a log of 0 steps", "12 steps"}, [&] {
    run(options);
  });
}

TEST(LoraRun, ALossThatIsNoNumberLeavesTheLastCheckpoint) {
  const test::ScratchFolder folder;
  LoraRunOptions options = options_at(folder.path() / "out");
  EXPECT_THROW(run(options, cancel_at(4)), Error);
  const std::string before =
      content(options.output / adapters::kTrainingStateFile);
  LoraRunOptions wild = options;
  wild.overwrite = true;
  wild.trainer.learning_rate = {
      .peak = 1e30f, .decay = Decay::Constant, .total_steps = 12};
  test::expect_error(
      ErrorKind::InvalidInput, {"loss of", "lower learning rate"}, [&] {
        run(wild);
      });
  EXPECT_TRUE(before == content(options.output / adapters::kTrainingStateFile));
}

TEST(LoraRun, EpochsBecomeSteps) {
  const TrainerOptions trainer{.batch_size = 4, .accumulation = 2};
  EXPECT_EQ(steps_of(1, 16, trainer), 2);
  EXPECT_EQ(steps_of(1, 17, trainer), 3);
  EXPECT_EQ(steps_of(0.01, 16, trainer), 1);
}

} // namespace
} // namespace optiq::train
