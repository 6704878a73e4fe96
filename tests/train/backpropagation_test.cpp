#include "optiq/train/backpropagation.h"

#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"
#include "support/small_checkpoint.h"
#include "support/small_network.h"
#include "train/gradient_oracle.h"

#include "optiq/kernels/mlx/mlx_device.h"

namespace optiq::train {
namespace {

using artifacts::Json;
using kernels::Compute;
using testing::kVocab;

// 4 layers of sums of up to 100 products, each way, as a random walk of
// roundings: 8 sqrt(10000) 2^-24.
constexpr double kBound = 5e-5;

std::vector<std::int32_t> random_tokens(int n) {
  std::mt19937 random(5);
  std::uniform_int_distribution<std::int32_t> any(0, kVocab - 1);
  std::vector<std::int32_t> tokens(n);
  for (auto& token : tokens) {
    token = any(random);
  }
  return tokens;
}

models::Setup load(
    const Json& config,
    kernels::Device& device = kernels::cpu_device()) {
  const test::ScratchFolder folder;
  testing::write_model(folder.path(), config);
  return {
      models::load_model(io::ModelDirectory::open(folder.path()), device),
      Compute::Exact};
}

std::vector<Json> families() {
  std::vector<Json> configs{
      testing::gemma4(),
      testing::gemma(9),
      testing::sizes("llama"),
      testing::sizes("qwen3")};
  for (const char* type : testing::kDenseFamilies) {
    configs.push_back(testing::dense(type));
  }
  return configs;
}

TEST(Backpropagation, AgreesWithAutogradOnEveryFamily) {
  const auto batch = examples_of(random_tokens(90), {70, 1, 12});
  for (const Json& config : families()) {
    SCOPED_TRACE(config["model_type"]);
    const models::Setup on_mlx = load(config, kernels::mlx_device());
    const models::Setup setup = load(config);
    const nn::Adapter adapter = adapter_of(*setup.model);
    EXPECT_GE(adapter.updates.size(), 16U);
    const auto expected = differentiate_by_mlx(on_mlx, batch, adapter);
    expect_gradients(
        Backpropagation(setup).run(batch, adapter), expected, kBound);
    expect_gradients(
        Backpropagation(on_mlx, {.recomputes_layers = true})
            .run(batch, adapter),
        expected,
        kBound);
  }
}

TEST(Backpropagation, RecomputedLayersGiveTheSameBits) {
  const auto batch = examples_of(random_tokens(90), {70, 12});
  for (const Json& config : families()) {
    const models::Setup setup = load(config);
    const nn::Adapter adapter = adapter_of(*setup.model);
    const Loss kept = Backpropagation(setup).run(batch, adapter);
    const Loss recomputed =
        Backpropagation(setup, {.recomputes_layers = true}).run(batch, adapter);
    EXPECT_TRUE(same_bits(kept, recomputed)) << config["model_type"];
    EXPECT_EQ(
        kept.sum,
        Backpropagation(setup, {.logit_rows = 7}).evaluate(batch, adapter).sum);
  }
}

TEST(Backpropagation, BitsDoNotDependOnThreadsOrEarlierSteps) {
  const auto batch = examples_of(random_tokens(90), {40, 33});
  const models::Setup setup = load(testing::gemma(9));
  const nn::Adapter adapter = adapter_of(*setup.model);
  Backpropagation backpropagation(setup);
  const Loss first = backpropagation.run(batch, adapter);
  backpropagation.run({batch.data(), 1}, adapter);
  for (const int threads : {1, 2, 5}) {
    const testing::Threads guard(threads);
    EXPECT_TRUE(same_bits(first, backpropagation.run(batch, adapter)))
        << threads;
  }
  EXPECT_EQ(first.sum, backpropagation.evaluate(batch, adapter).sum);
}

TEST(Backpropagation, LossIsThatOfTheForward) {
  const auto batch = examples_of(random_tokens(90), {30, 20});
  const models::Setup setup = load(testing::sizes("llama"));
  const Loss found = Backpropagation(setup).evaluate(batch, {});
  double expected = 0;
  double weight = 0;
  for (const Example& example : batch) {
    models::Forward forward(setup);
    forward.add_fresh(example.tokens);
    const mx::array logits = models::logits_of(setup, forward.hidden_states());
    const auto sums = kernels::cpu_device().log_sum_exp(logits);
    const auto picked = kernels::cpu_device().pick(logits, example.labels);
    for (std::size_t t = 0; t < sums.size(); ++t) {
      expected += double{example.weights[t]} * (sums[t] - double{picked[t]});
      weight += double{example.weights[t]};
    }
  }
  EXPECT_NEAR(found.sum, expected, 1e-12 * expected); // the same logits' bits
  EXPECT_EQ(found.weight, weight);
}

TEST(Backpropagation, GoesNoLowerThanWhatIsTrained) {
  const auto batch = examples_of(random_tokens(90), {30});
  const models::Setup setup = load(testing::sizes("llama"));
  nn::Adapter all = adapter_of(*setup.model);
  for (const bool recomputes : {false, true}) {
    Backpropagation backpropagation(setup, {.recomputes_layers = recomputes});
    for (const char* part : {"layers.2.mlp.up_proj", "layers.0.mlp.up_proj"}) {
      const std::string name = std::string("model.") + part;
      const nn::Adapter one{.updates = {{name, all.updates.at(name)}}};
      const Loss found = backpropagation.run(batch, one);
      const auto expected = differentiate_by_mlx(
          load(testing::sizes("llama"), kernels::mlx_device()), batch, one);
      expect_gradients(found, expected, kBound);
    }
  }
}

// Of a product dL/dB = scale dL/dW A^T, dL/dA = scale B^T dL/dW: the visitor's
// rows against the adapter's gradients.
TEST(Backpropagation, ShowsEveryUseOfAMatrix) {
  const auto batch = examples_of(random_tokens(90), {40, 9});
  const models::Setup setup = load(testing::gemma4());
  const nn::Adapter adapter = adapter_of(*setup.model);
  std::map<const kernels::MatrixStorage*, std::string> names;
  for (const models::Module& module : setup.model->modules()) {
    names.insert({&module.matrix.storage(), module.name});
  }
  std::map<std::string, mx::array> weights;
  std::map<std::string, int> lookups;
  const auto visit = [&](const WeightUse& use) {
    const std::string& name = names.at(&use.weight.storage());
    if (use.x == nullptr) {
      EXPECT_EQ(use.ids.size(), 49U);
      EXPECT_EQ(use.dy.shape(0), 49);
      ++lookups[name];
      return;
    }
    const mx::array dw =
        kernels::cpu_device().gradients().outer(use.dy, *use.x);
    const auto [at, is_new] = weights.insert({name, dw});
    if (!is_new) { // the head, some rows at a time
      at->second = kernels::cpu_device().add(at->second, dw);
    }
  };
  for (const bool recomputes : {false, true}) {
    weights.clear();
    lookups.clear();
    const Loss loss = Backpropagation(setup, {.recomputes_layers = recomputes})
                          .run(batch, adapter, {.visitor = visit});
    EXPECT_EQ(weights.size(), adapter.updates.size());
    EXPECT_EQ(lookups.size(), 2U);
    for (const auto& [name, gradient] : loss.gradients) {
      const nn::LowRank& change = adapter.updates.at(name);
      mx::array db = mx::multiply(
          mx::matmul(change.a, mx::transpose(weights.at(name))),
          mx::array(change.scale));
      mx::eval(db);
      EXPECT_LE(relative_distance(gradient.b, db), kBound) << name;
    }
  }
}

// Central differences in float32: an error of 1e-3 is their own.
TEST(Backpropagation, LookupsChangeTheLossAsShown) {
  const auto batch = examples_of(random_tokens(90), {40, 9});
  const models::Setup setup = load(testing::sizes("llama")); // a tied head
  const models::Module embeddings = setup.model->modules().front();
  mx::array dw = mx::zeros({kVocab, testing::kHidden}, mx::float32);
  const auto visit = [&](const WeightUse& use) {
    if (&use.weight.storage() != &embeddings.matrix.storage()) {
      return;
    }
    if (use.x != nullptr) {
      dw = mx::add(dw, mx::matmul(mx::transpose(use.dy), *use.x));
      return;
    }
    const mx::array ids(
        use.ids.data(), {static_cast<int>(use.ids.size())}, mx::int32);
    const mx::array one_hot = mx::astype(
        mx::equal(
            mx::expand_dims(mx::arange(kVocab), 1), mx::expand_dims(ids, 0)),
        mx::float32);
    dw = mx::add(dw, mx::matmul(one_hot, use.dy));
  };
  Backpropagation(setup).run(batch, {}, {.visitor = visit});
  std::vector<std::int32_t> all(kVocab);
  std::iota(all.begin(), all.end(), 0);
  const mx::array w = kernels::cpu_device().embed(all, embeddings.matrix, 1.f);
  const mx::array v = testing::normal_array(w.shape(), 8, 1e-2f);
  const auto loss_at = [&](float step) {
    mx::array moved = mx::add(w, mx::multiply(v, mx::array(step)));
    mx::eval(moved);
    const models::Setup changed = setup.with_model(setup.model->with_matrices(
        {{embeddings.name, kernels::cpu_device().dense(moved)}}));
    return Backpropagation(changed).evaluate(batch, {}).sum;
  };
  const double slope = mx::sum(mx::multiply(dw, v)).item<float>();
  EXPECT_NEAR(
      (loss_at(1.f) - loss_at(-1.f)) / 2, slope, 3e-3 * std::abs(slope));
}

// The loss under one mask along a direction in A and B of every module; central
// differences in float32 as above.
TEST(Backpropagation, DropoutHasItsDerivative) {
  const auto batch = examples_of(random_tokens(90), {40, 9});
  const models::Setup setup = load(testing::sizes("llama"));
  const nn::Adapter adapter = adapter_of(*setup.model);
  const nn::Adapter direction = adapter_of(*setup.model, 900);
  const DropoutOptions dropout{.rate = 0.4f, .seed = 5};
  Backpropagation kept(setup);
  const Loss loss = kept.run(batch, adapter, {.dropout = dropout});
  EXPECT_TRUE(same_bits(
      loss,
      Backpropagation(setup, {.recomputes_layers = true})
          .run(batch, adapter, {.dropout = dropout})));
  EXPECT_GT(std::abs(loss.sum - kept.evaluate(batch, adapter).sum), 1e-3);
  const auto loss_at = [&](float step) {
    nn::Adapter moved = adapter;
    for (auto& [name, change] : moved.updates) {
      const nn::LowRank& by = direction.updates.at(name);
      change.a = mx::add(change.a, mx::multiply(by.a, mx::array(step)));
      change.b = mx::add(change.b, mx::multiply(by.b, mx::array(step)));
      mx::eval(change.a, change.b);
    }
    return kept.run(batch, moved, {.dropout = dropout}).sum;
  };
  double slope = 0;
  for (const auto& [name, gradient] : loss.gradients) {
    const nn::LowRank& by = direction.updates.at(name);
    slope += mx::sum(mx::multiply(gradient.a, by.a)).item<float>();
    slope += mx::sum(mx::multiply(gradient.b, by.b)).item<float>();
  }
  const float step = 2e-3f;
  EXPECT_NEAR(
      (loss_at(step) - loss_at(-step)) / double{2 * step},
      slope,
      3e-3 * std::abs(slope));
}

TEST(Backpropagation, WithoutLabelsThereIsNothingToLearn) {
  auto batch = examples_of(random_tokens(90), {10});
  std::fill(batch[0].weights.begin(), batch[0].weights.end(), 0.f);
  const models::Setup setup = load(testing::sizes("llama"));
  const Loss loss = Backpropagation(setup).run(batch, adapter_of(*setup.model));
  EXPECT_EQ(loss.sum, 0);
  EXPECT_EQ(loss.weight, 0);
  EXPECT_TRUE(loss.gradients.empty());
}

TEST(Backpropagation, RefusesWhatDoesNotFit) {
  const models::Setup setup = load(testing::sizes("llama"));
  Backpropagation backpropagation(setup);
  const Example good = examples_of(random_tokens(9), {5}).front();
  const auto refuse = [&](ErrorKind kind,
                          std::initializer_list<std::string> parts,
                          const Example& example,
                          const nn::Adapter& adapter = {}) {
    test::expect_error(kind, parts, [&] {
      backpropagation.run({&example, 1}, adapter);
    });
  };
  refuse(ErrorKind::InvalidInput, {"example 0", "0 tokens"}, {});
  Example bad = good;
  bad.weights.pop_back();
  refuse(ErrorKind::InvalidInput, {"5 labels and 4 weights"}, bad);
  bad = good;
  bad.labels[1] = kVocab;
  refuse(ErrorKind::InvalidInput, {"label 97", "below 97"}, bad);
  bad = good;
  bad.tokens[1] = -1;
  refuse(ErrorKind::InvalidInput, {"token id -1"}, bad);
  nn::Adapter stray = adapter_of(*setup.model);
  stray.updates.insert(
      {"model.layers.9.mlp.up_proj",
       {.a = testing::normal_array({kRank, testing::kHidden}, 1),
        .b = testing::normal_array({kRank, testing::kInner}, 2)}});
  refuse(ErrorKind::NotFound, {"model.layers.9.mlp.up_proj"}, good, stray);
  std::mt19937 random(1);
  const models::Setup other(
      std::make_shared<testing::SmallNetwork>(
          5,
          4,
          std::vector<mx::array>{testing::random_weight(4, 4, 1.f, random)},
          testing::random_weight(5, 4, 1.f, random),
          testing::random_weight(5, 4, 1.f, random)),
      Compute::Exact);
  test::expect_error(ErrorKind::Unsupported, {"small_network"}, [&] {
    Backpropagation{other};
  });
}

} // namespace
} // namespace optiq::train
