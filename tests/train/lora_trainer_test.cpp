#include "optiq/train/lora_trainer.h"

#include <cmath>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/kernel_checks.h"
#include "support/scratch_folder.h"
#include "support/small_checkpoint.h"

#include "optiq/io/safetensors.h"

namespace optiq::train {
namespace {

using kernels::Compute;
using testing::kVocab;

models::Setup load(const testing::Json& config = testing::sizes("llama")) {
  const test::ScratchFolder folder;
  testing::write_model(folder.path(), config);
  return {
      models::load_model(io::ModelDirectory::open(folder.path())),
      Compute::Exact};
}

/** Every token is followed by one that its value tells: something to learn. */
std::vector<Example> make_examples(int n) {
  std::mt19937 random(7);
  std::uniform_int_distribution<std::int32_t> any(0, kVocab - 1);
  std::vector<Example> examples;
  for (int i = 0; i < n; ++i) {
    Example example;
    for (int t = 0; t < 5 + i % 4; ++t) {
      const std::int32_t token = any(random);
      example.tokens.push_back(token);
      example.labels.push_back((3 * token + 1) % kVocab);
      example.weights.push_back(t == 0 ? 0.f : 1.f);
    }
    examples.push_back(std::move(example));
  }
  return examples;
}

const std::vector<Example>& examples() {
  static const std::vector<Example> all = make_examples(40);
  return all;
}

TrainerOptions options() {
  return {
      .learning_rate = {.peak = 5e-3f, .warmup_steps = 3, .total_steps = 200},
      .batch_size = 3,
      .accumulation = 2,
      .seed = 11};
}

LoraTrainer make_trainer(
    const models::Setup& setup,
    const TrainerOptions& chosen = options()) {
  return LoraTrainer(
      setup, plan_ranks(*setup.model, {}, {.rank = 4}), examples(), chosen);
}

bool same_state(const LoraTrainer& a, const LoraTrainer& b) {
  bool is_same = a.steps_done() == b.steps_done();
  for (std::size_t i = 0; i < a.modules().size(); ++i) {
    const TrainedModule& x = a.modules()[i];
    const TrainedModule& y = b.modules()[i];
    is_same = is_same && testing::same_bits(x.a, y.a) &&
        testing::same_bits(x.b, y.b) &&
        testing::same_bits(x.a_mean, y.a_mean) &&
        testing::same_bits(x.b_square, y.b_square);
  }
  return is_same;
}

TEST(LoraTrainer, LearnsAndLeavesTheModelAsItIs) {
  // Its norms multiply by one and more: those of the others, at random, leave
  // no logits to speak of.
  const models::Setup setup = load(testing::gemma(64));
  LoraTrainer trainer(
      setup, plan_ranks(*setup.model, {}, {.rank = 4}), examples(), options());
  Backpropagation base(setup);
  const double before = base.evaluate(examples(), {}).sum;
  EXPECT_NEAR(
      trainer.evaluate(examples()),
      before / base.evaluate(examples(), {}).weight,
      1e-9); // B is zero
  const double first = trainer.evaluate(examples());
  for (int i = 0; i < 120; ++i) {
    const StepReport report = trainer.step();
    EXPECT_EQ(report.step, i + 1);
    EXPECT_GT(report.gradient_norm, 0);
    EXPECT_GT(report.tokens, report.learned);
  }
  EXPECT_LT(trainer.evaluate(examples()), 0.5 * first);
  EXPECT_EQ(base.evaluate(examples(), {}).sum, before);
}

TEST(LoraTrainer, TheSameTwiceAndResumed) {
  const models::Setup setup = load(testing::sizes("qwen3"));
  const test::ScratchFolder folder;
  const auto state = folder.path() / "state";
  auto whole = make_trainer(setup);
  {
    auto half = make_trainer(setup);
    for (int i = 0; i < 8; ++i) {
      half.step();
    }
    half.save(state);
  }
  for (int i = 0; i < 17; ++i) { // over the end of an epoch
    whole.step();
  }
  const testing::Threads guard(3);
  auto again = make_trainer(setup);
  auto resumed = make_trainer(setup);
  resumed.resume(state);
  EXPECT_EQ(resumed.steps_done(), 8);
  while (resumed.steps_done() < 17) {
    resumed.step();
  }
  while (again.steps_done() < 17) {
    again.step();
  }
  EXPECT_TRUE(same_state(whole, again));
  EXPECT_TRUE(same_state(whole, resumed));
}

TEST(LoraTrainer, DropoutIsOfTheStep) {
  const models::Setup setup = load();
  const test::ScratchFolder folder;
  TrainerOptions dropping = options();
  dropping.dropout = 0.3f;
  auto plain = make_trainer(setup);
  auto whole = make_trainer(setup, dropping);
  dropping.recomputes_layers = true;
  auto half = make_trainer(setup, dropping);
  for (int i = 0; i < 2; ++i) {
    plain.step();
    whole.step();
    half.step();
  }
  EXPECT_FALSE(same_state(plain, whole));
  half.save(folder.path() / "state");
  auto resumed = make_trainer(setup, dropping);
  resumed.resume(folder.path() / "state");
  whole.step();
  resumed.step();
  EXPECT_TRUE(same_state(whole, resumed));
  // Measuring drops nothing.
  EXPECT_EQ(resumed.evaluate(examples()), resumed.evaluate(examples()));
  dropping.dropout = 1.f;
  test::expect_error(ErrorKind::InvalidInput, {"a dropout of 1"}, [&] {
    make_trainer(setup, dropping);
  });
}

TEST(LoraTrainer, AccumulatesAsOneBatch) {
  const models::Setup setup = load();
  TrainerOptions one = options();
  one.batch_size = 6;
  one.accumulation = 1;
  auto parts = make_trainer(setup);
  auto whole = make_trainer(setup, one);
  const StepReport a = parts.step();
  const StepReport b = whole.step();
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_NEAR(a.loss, b.loss, 1e-6 * a.loss);
  EXPECT_NEAR(a.gradient_norm, b.gradient_norm, 1e-5 * a.gradient_norm);
}

TEST(LoraTrainer, ClipsTheNorm) {
  const models::Setup setup = load();
  TrainerOptions clipped = options();
  clipped.clip = 1e-3f;
  auto trainer = make_trainer(setup, clipped);
  const StepReport report = trainer.step();
  ASSERT_GT(report.gradient_norm, 1e-2);
  double square = 0;
  for (const TrainedModule& module : trainer.modules()) {
    for (const auto* means : {&module.a_mean, &module.b_mean}) {
      for (const float mean : *means) {
        square += double{mean} * double{mean};
      }
    }
  }
  // After one step the mean is (1 - beta1) times the gradient.
  EXPECT_NEAR(std::sqrt(square), 0.1 * 1e-3, 1e-8);
}

TEST(LoraTrainer, StopsAtALossThatIsNoNumber) {
  const models::Setup setup = load();
  TrainerOptions wild = options();
  wild.learning_rate = {.peak = 1e30f, .decay = Decay::Constant};
  auto trainer = make_trainer(setup, wild);
  test::expect_error(
      ErrorKind::InvalidInput, {"loss of", "lower", "learning rate"}, [&] {
        for (int i = 0; i < 5; ++i) {
          trainer.step();
        }
      });
  EXPECT_LT(trainer.steps_done(), 5);
}

TEST(LoraTrainer, RefusesAnotherStateAndKeepsItsOwn) {
  const models::Setup setup = load();
  const test::ScratchFolder folder;
  const auto state = folder.path() / "state";
  auto trainer = make_trainer(setup);
  trainer.step();
  trainer.save(state);
  TrainerOptions changed = options();
  changed.seed = 12;
  test::expect_error(ErrorKind::InvalidInput, {"other settings"}, [&] {
    auto other = make_trainer(setup, changed);
    other.resume(state);
  });
  test::expect_error(ErrorKind::InvalidInput, {"other settings"}, [&] {
    LoraTrainer other( // the scale of every update
        setup,
        plan_ranks(*setup.model, {}, {.rank = 4, .alpha = 7.f}),
        examples(),
        options());
    other.resume(state);
  });
  test::expect_error(ErrorKind::InvalidInput, {"found no tensor"}, [&] {
    LoraTrainer other(
        setup,
        plan_ranks(*setup.model, {}, {.rank = 3}),
        examples(),
        options());
    other.resume(state);
  });
  test::expect_error(ErrorKind::InvalidInput, {"which no module has"}, [&] {
    LoraTrainer other(
        setup,
        plan_ranks(*setup.model, {}, {.rank = 4, .target_modules = {"q_proj"}}),
        examples(),
        options());
    other.resume(state);
  });
  test::expect_error(ErrorKind::NotFound, {"none"}, [&] {
    auto other = make_trainer(setup);
    other.resume(folder.path() / "none");
  });
  const auto foreign = folder.path() / "foreign";
  io::write_safetensors(foreign, {}, {{"step", "3"}});
  test::expect_error(ErrorKind::Corrupt, {"optiq-training-1"}, [&] {
    auto other = make_trainer(setup);
    other.resume(foreign);
  });
}

TEST(LoraTrainer, RefusesOptionsOutOfRange) {
  const models::Setup setup = load();
  TrainerOptions bad = options();
  bad.batch_size = 0;
  test::expect_error(ErrorKind::InvalidInput, {"batches of 0"}, [&] {
    make_trainer(setup, bad);
  });
  test::expect_error(ErrorKind::InvalidInput, {"found 0 examples"}, [&] {
    LoraTrainer(setup, {}, {}, options());
  });
}

} // namespace
} // namespace optiq::train
