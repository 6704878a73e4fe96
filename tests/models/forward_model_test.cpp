#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/kernel_checks.h"
#include "support/scratch_folder.h"
#include "support/small_checkpoint.h"
#include "support/tiny_model.h"

#include "optiq/models/forward.h"

namespace optiq::models {
namespace {

using kernels::Compute;
using Tokens = std::vector<std::int32_t>;

std::shared_ptr<const Model> small_model(const artifacts::Json& config) {
  const test::ScratchFolder folder;
  testing::write_model(folder.path(), config);
  return load_model(io::ModelDirectory::open(folder.path()));
}

/** One of each family that the small checkpoints have. */
std::vector<std::shared_ptr<const Model>> small_models() {
  std::vector<std::shared_ptr<const Model>> models{
      small_model(testing::sizes("llama")),
      small_model(testing::gemma(65)),
      small_model(testing::gemma4())};
  for (const char* family : testing::kDenseFamilies) {
    models.push_back(small_model(testing::dense(family)));
  }
  return models;
}

Tokens tokens_from(std::uint32_t seed, std::size_t n) {
  std::mt19937 random(seed);
  Tokens tokens(n);
  for (std::int32_t& token : tokens) {
    token = static_cast<std::int32_t>(random() % testing::kVocab);
  }
  return tokens;
}

bool same_bits(const mx::array& a, const mx::array& b) {
  return a.shape() == b.shape() &&
      testing::same_bits(io::floats(a), io::floats(b));
}

/** What an observer was shown, by the linear's name. */
struct Seen {
  std::map<std::string, mx::array> inputs;
  std::multiset<std::string> names;

  nn::LinearObserver observer() {
    return [this](const nn::Linear& linear, const mx::array& x) {
      EXPECT_EQ(x.shape(1), linear.weight.in_features()) << linear.name;
      names.insert(linear.name);
      inputs.insert_or_assign(linear.name, x);
    };
  }
};

/** The modules that multiply: tables of which only rows are read do not. */
std::multiset<std::string> multiplying_modules(const Model& model) {
  std::multiset<std::string> names;
  for (const Module& module : model.modules()) {
    const bool is_table = module.name.ends_with("embed_tokens_per_layer") ||
        (module.name.ends_with("embed_tokens") && !model.info().tied_head);
    if (!is_table) {
      names.insert(module.name);
    }
  }
  return names;
}

/** Two new sequences of 9 and 5 tokens, of which 3 rows are wanted. */
mx::array run_two(
    const models::Setup& setup,
    std::span<const std::int32_t> tokens,
    nn::LinearObserver observer) {
  const auto pool = std::make_shared<cache::BlockPool>(
      cache::sequence_bytes(setup.layout, 9) +
      cache::sequence_bytes(setup.layout, 5));
  cache::Sequence first(pool, setup.layout);
  cache::Sequence second(pool, setup.layout);
  const std::vector<int> last{8};
  const std::vector<int> some{1, 4};
  return Forward(setup, std::move(observer))
      .add(first, tokens.first(9), last)
      .add(second, tokens.subspan(9, 5), some)
      .run();
}

void expect_observed(
    const models::Setup& setup,
    std::span<const std::int32_t> tokens) {
  const Model& model = *setup.model;
  Seen seen;
  const mx::array logits = run_two(setup, tokens, seen.observer());
  EXPECT_TRUE(same_bits(logits, run_two(setup, tokens, {})));
  EXPECT_EQ(seen.names, multiplying_modules(model));
  const int last_layer = model.info().n_layers - 1;
  for (const Module& module : model.modules()) {
    const auto found = seen.inputs.find(module.name);
    if (found == seen.inputs.end()) {
      continue;
    }
    // The last layer mixes all rows and goes on with the wanted ones.
    const bool is_mixer = module.name.find("_attn.") != std::string::npos;
    const bool is_head = module.name.ends_with("lm_head") ||
        module.name.ends_with("embed_tokens");
    const bool is_late = module.id.layer == last_layer && !is_mixer;
    EXPECT_EQ(found->second.shape(0), is_head || is_late ? 3 : 14)
        << module.name;
  }
}

TEST(Observer, SeesEveryLinearOnceAndChangesNoBit) {
  expect_observed(
      {testing::load_tiny_model(), Compute::Exact},
      testing::arithmetic_tokens(14));
  for (const auto& model : small_models()) {
    SCOPED_TRACE(model->info().model_type);
    expect_observed({model, Compute::Exact}, tokens_from(1, 14));
  }
}

// What it is shown, multiplied by hand, gives what the model went on with: the
// norms before the products are in it.
TEST(Observer, SeesWhatIsMultiplied) {
  const auto model = testing::load_tiny_model();
  Seen seen;
  const mx::array logits = run_two(
      {model, Compute::Exact}, testing::arithmetic_tokens(14), seen.observer());
  std::map<std::string, kernels::Matrix> matrices;
  for (const Module& module : model->modules()) {
    matrices.emplace(module.name, module.matrix);
  }
  const auto product = [&](const std::string& name) {
    return kernels::matmul(
        seen.inputs.at(name), matrices.at(name), Compute::Exact);
  };
  int n_blocks = 0;
  for (const auto& [name, matrix] : matrices) {
    const auto at = name.find("mlp.down_proj");
    if (at == std::string::npos) {
      continue;
    }
    const std::string mlp = name.substr(0, at) + "mlp.";
    EXPECT_TRUE(same_bits(
        seen.inputs.at(name),
        kernels::swiglu(product(mlp + "gate_proj"), product(mlp + "up_proj"))))
        << name;
    ++n_blocks;
  }
  EXPECT_EQ(n_blocks, model->info().n_layers);
  ASSERT_TRUE(model->info().tied_head);
  EXPECT_TRUE(same_bits(logits, product(model->modules().front().name)));
}

TEST(Forward, OfManySequencesEqualsEachAlone) {
  for (const auto& model : small_models()) {
    SCOPED_TRACE(model->info().model_type);
    const Tokens tokens = tokens_from(2, 200);
    const std::span<const std::int32_t> all = tokens;
    const models::Setup setup(model, Compute::Fast);
    const auto pool = std::make_shared<cache::BlockPool>(std::size_t{1} << 30);
    cache::Sequence continued(pool, setup.layout);
    Forward(setup).add(continued, all.first(70)).run();
    EXPECT_EQ(continued.length(), 70);
    cache::Sequence begun(pool, setup.layout);
    const std::vector<int> last{29};
    const std::vector<int> some{0, 63, 99};
    const mx::array together = Forward(setup)
                                   .add(continued, all.subspan(70, 30), last)
                                   .add(begun, all.first(100), some)
                                   .run();
    EXPECT_EQ(continued.length(), 100);
    EXPECT_EQ(begun.length(), 100);
    const mx::array whole = logits_of(
        setup, Forward(setup).add_fresh(all.first(100)).hidden_states());
    const std::vector<int> rows{99, 0, 63, 99};
    for (int i = 0; i < 4; ++i) {
      EXPECT_TRUE(same_bits(
          io::row_range(together, i, 1), io::row_range(whole, rows[i], 1)))
          << i;
    }
  }
}

TEST(Forward, LayersOneByOneEqualThemTogether) {
  for (const auto& model : small_models()) {
    SCOPED_TRACE(model->info().model_type);
    const Tokens tokens = tokens_from(3, 90);
    const std::span<const std::int32_t> all = tokens;
    const models::Setup setup(model, Compute::Exact);
    const auto forward = [&] {
      auto made = std::make_unique<Forward>(setup);
      made->add_fresh(all.first(20)).add_fresh(all.subspan(20));
      return made;
    };
    EXPECT_EQ(
        forward()->fresh_bytes(),
        cache::sequence_bytes(setup.layout, 20) +
            cache::sequence_bytes(setup.layout, 70));
    const auto by_layer = forward();
    mx::array x = model->embed(tokens);
    for (int layer = 0; layer < model->info().n_layers; ++layer) {
      x = by_layer->run_layers(layer, layer + 1, x);
    }
    EXPECT_TRUE(same_bits(x, forward()->hidden_states()));
  }
}

TEST(Forward, ThatFindsNoRoomLeavesEveryPastAsItWas) {
  const models::Setup setup(testing::load_tiny_model(), Compute::Fast);
  const Tokens tokens = testing::arithmetic_tokens(140);
  const std::span<const std::int32_t> all = tokens;
  const std::size_t two_blocks = cache::sequence_bytes(setup.layout, 100);
  const std::size_t three_blocks = cache::sequence_bytes(setup.layout, 140);
  // One of two sequences may go on to a third block, not both.
  const auto pool =
      std::make_shared<cache::BlockPool>(two_blocks + three_blocks);
  cache::Sequence a(pool, setup.layout);
  cache::Sequence b(pool, setup.layout);
  const std::vector<int> last{39};
  const auto run = [&](cache::Sequence& sequence, std::size_t begin, int n) {
    return Forward(setup).add(sequence, all.subspan(begin, n), last).run();
  };
  run(a, 0, 100);
  run(b, 0, 100);
  test::expect_error(ErrorKind::Exhausted, {"cache memory"}, [&] {
    Forward(setup)
        .add(a, all.subspan(100, 40), last)
        .add(b, all.subspan(100, 40), last)
        .run();
  });
  EXPECT_EQ(a.length(), 100);
  EXPECT_EQ(b.length(), 100);
  cache::Sequence alone(
      std::make_shared<cache::BlockPool>(three_blocks), setup.layout);
  run(alone, 0, 100);
  EXPECT_TRUE(same_bits(run(a, 100, 40), run(alone, 100, 40)));
}

} // namespace
} // namespace optiq::models
