#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "support/kernel_checks.h"
#include "support/tiny_model.h"

#include "optiq/models/checkpoint.h"
#include "optiq/models/forward.h"

/** Adapters of single sequences in one batch. */
namespace optiq::models {
namespace {

using kernels::Compute;
using Tokens = std::vector<std::int32_t>;

constexpr int kRank = 4;
constexpr float kScale = 0.5f;

class Adapters : public ::testing::Test {
 protected:
  /** Of linears of every kind: mixers, MLP, the last layer and the head. */
  nn::Adapter make_adapter(unsigned seed) const {
    const std::string layers = "language_model.model.layers.";
    nn::Adapter adapter;
    for (const std::string& name :
         {layers + "0.linear_attn.in_proj_qkv",
          layers + "3.self_attn.q_proj",
          layers + "3.self_attn.o_proj",
          layers + "7.mlp.gate_proj",
          layers + "7.mlp.down_proj",
          std::string("language_model.model.embed_tokens")}) {
      for (const Module& module : model_->modules()) {
        if (module.name == name) {
          const int in = module.matrix.in_features();
          const int out = module.matrix.out_features();
          adapter.updates.insert_or_assign(
              name,
              nn::LowRank{
                  .a = testing::normal_array({kRank, in}, ++seed, 0.02f),
                  .b = testing::normal_array({kRank, out}, ++seed, 0.02f),
                  .scale = kScale});
        }
      }
    }
    EXPECT_EQ(adapter.updates.size(), 6U);
    return adapter;
  }

  /** Logits of each sequence's last two tokens, all in one batch. */
  std::vector<mx::array> run(
      const models::Setup& setup,
      const std::vector<Tokens>& tokens,
      const std::vector<const nn::Adapter*>& adapters) const {
    const auto pool = std::make_shared<cache::BlockPool>(1 << 28);
    std::vector<std::unique_ptr<cache::Sequence>> sequences;
    Forward forward(setup);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      sequences.push_back(
          std::make_unique<cache::Sequence>(pool, setup.layout));
      const auto n = static_cast<int>(tokens[i].size());
      const std::vector<int> wanted{n - 2, n - 1};
      forward.add(*sequences.back(), tokens[i], wanted, adapters[i]);
    }
    const mx::array logits = forward.run();
    std::vector<mx::array> parts;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      parts.push_back(io::materialize(mx::slice(
          logits,
          {static_cast<int>(2 * i), 0},
          {static_cast<int>(2 * i + 2), logits.shape(1)})));
    }
    return parts;
  }

  std::shared_ptr<const Model> model_ = testing::load_tiny_model();
  Tokens all_ = testing::arithmetic_tokens(60);
};

TEST_F(Adapters, RideInOneBatchWithoutCrossTalk) {
  const models::Setup setup(model_, Compute::Fast);
  const nn::Adapter one = make_adapter(100);
  const nn::Adapter two = make_adapter(200);
  const std::vector<Tokens> tokens{
      {all_.begin(), all_.begin() + 9},
      {all_.begin() + 9, all_.begin() + 40},
      {all_.begin() + 40, all_.end()},
      {all_.begin() + 3, all_.begin() + 20}};
  const std::vector<const nn::Adapter*> adapters{&one, nullptr, &two, &one};
  const auto together = run(setup, tokens, adapters);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto alone = run(setup, {tokens[i]}, {adapters[i]});
    EXPECT_TRUE(
        testing::same_bits(io::floats(together[i]), io::floats(alone.front())))
        << i;
    const auto plain = run(setup, {tokens[i]}, {nullptr});
    EXPECT_EQ(
        testing::same_bits(io::floats(together[i]), io::floats(plain.front())),
        adapters[i] == nullptr)
        << i;
  }
}

// An adapter is what it would be inside the weights: W + scale B A. The head
// here is tied: merged into its matrix, the update would change what tokens are
// embedded as, too, so that this adapter leaves it alone.
TEST_F(Adapters, EqualTheirWeightsMerged) {
  nn::Adapter adapter = make_adapter(300);
  adapter.updates.erase("language_model.model.embed_tokens");
  const auto checkpoint =
      open_checkpoint(io::ModelDirectory::open(testing::tiny_model_path()));
  MatricesByName merged;
  for (const auto& [name, change] : adapter.updates) {
    const mx::array weight =
        mx::astype(checkpoint.at(name + ".weight").load(), mx::float32);
    const mx::array update = mx::multiply(
        mx::matmul(mx::transpose(change.b), change.a), mx::array(change.scale));
    merged.emplace(
        name, model_->device().dense(io::materialize(mx::add(weight, update))));
  }
  const models::Setup setup(model_, Compute::Exact);
  const auto found = run(setup, {all_}, {&adapter});
  const auto expected =
      run(setup.with_model(model_->with_matrices(merged)), {all_}, {nullptr});
  const auto plain = run(setup, {all_}, {nullptr});
  const auto kl = model_->device().kl_divergence(expected[0], found[0]);
  const auto moved = model_->device().kl_divergence(plain[0], found[0]);
  for (std::size_t i = 0; i < kl.size(); ++i) {
    EXPECT_LT(kl[i], 1e-8); // sums of float32 in another order
    EXPECT_GT(moved[i], 1e-5);
  }
}

} // namespace
} // namespace optiq::models
