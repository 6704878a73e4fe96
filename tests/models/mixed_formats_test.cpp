#include <cmath>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/kernel_checks.h"
#include "support/scratch_folder.h"
#include "support/small_checkpoint.h"

#include "optiq/kernels/devices.h"
#include "optiq/models/forward.h"
#include "optiq/models/setup.h"

namespace optiq::models {
namespace {

using Layout = std::vector<cache::LayerFormat>;
using Tokens = std::vector<std::int32_t>;

constexpr int kSteps = 3;

Tokens random_tokens(int seed, int n) {
  std::mt19937 random(seed);
  Tokens tokens(static_cast<std::size_t>(n));
  for (auto& token : tokens) {
    token = static_cast<std::int32_t>(random() % testing::kVocab);
  }
  return tokens;
}

Layout layout_of(const Model& model, artifacts::KvMethod method, double bits) {
  std::vector<artifacts::KvLayer> kv;
  for (const int layer : kv_layers(model)) {
    kv.push_back(
        {.layer_idx = layer,
         .codec = {
             .method = method,
             .key_bits = bits,
             .value_bits = bits,
             .group_size = 32}});
  }
  return cache_layout(model, kernels::Compute::Fast, kv);
}

/** Logits of the last token of every sequence, of a prompt and of kSteps more
 * tokens, in forwards of all of them: [step][sequence]. */
std::vector<std::vector<std::vector<float>>> run(
    const Setup& setup,
    const std::vector<Layout>& layouts,
    const std::vector<Tokens>& texts) {
  const auto pool = std::make_shared<cache::BlockPool>(
      std::size_t{1} << 30, setup.model->device());
  std::vector<std::unique_ptr<cache::Sequence>> sequences;
  for (const Layout& layout : layouts) {
    sequences.push_back(std::make_unique<cache::Sequence>(pool, layout));
  }
  std::vector<std::vector<std::vector<float>>> logits;
  for (int step = 0; step <= kSteps; ++step) {
    Forward forward(setup);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const std::span<const std::int32_t> all(texts[i]);
      const std::size_t n_prompt = all.size() - kSteps;
      const auto tokens = step == 0
          ? all.first(n_prompt)
          : all.subspan(n_prompt + static_cast<std::size_t>(step) - 1, 1);
      const int last = static_cast<int>(tokens.size()) - 1;
      forward.add(*sequences[i], tokens, {&last, 1});
    }
    const auto rows = setup.model->device().to_host(forward.run());
    auto& of_step = logits.emplace_back();
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const auto row = rows.row(static_cast<int>(i));
      of_step.emplace_back(row.begin(), row.end());
    }
  }
  return logits;
}

double distance(std::span<const float> a, std::span<const float> b) {
  double difference = 0;
  double size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{b[i]} * b[i];
  }
  return std::sqrt(difference / size);
}

/** Sequences of several formats, neighbours of the same one among them. */
void expect_as_alone(const Setup& setup) {
  const Model& model = *setup.model;
  using artifacts::KvMethod;
  const Layout dense = cache_layout(model, kernels::Compute::Fast);
  const Layout affine = layout_of(model, KvMethod::Affine, 4);
  const Layout turbo = layout_of(model, KvMethod::Turbo, 4);
  const std::vector<Layout> layouts{dense, affine, affine, dense, turbo};
  std::vector<Tokens> texts;
  for (std::size_t i = 0; i < layouts.size(); ++i) {
    texts.push_back(random_tokens(int(i), 60 + 11 * int(i) + kSteps));
  }
  const auto together = run(setup, layouts, texts);
  const bool exact = model.device().has_exact_rows();
  for (std::size_t i = 0; i < layouts.size(); ++i) {
    const auto alone = run(setup, {layouts[i]}, {texts[i]});
    for (std::size_t step = 0; step < alone.size(); ++step) {
      const auto& found = together[step][i];
      const auto& expected = alone[step][0];
      if (exact) {
        EXPECT_TRUE(testing::same_bits(found, expected)) << i << " " << step;
      } else {
        // Float32 sums of some hundred terms in another order.
        EXPECT_LT(distance(found, expected), 1e-4) << i << " " << step;
      }
    }
  }
}

TEST(MixedFormats, AForwardGivesEachSequenceWhatItGetsAlone) {
  for (kernels::Device* device :
       {&kernels::find_device("cpu"), &kernels::find_device("mlx")}) {
    for (const auto& config :
         {testing::sizes("llama"), testing::gemma(65), testing::gemma4()}) {
      SCOPED_TRACE(
          std::string(device->name()) + " " +
          config["model_type"].get<std::string>());
      const test::ScratchFolder folder;
      testing::write_model(folder.path(), config, {});
      const std::shared_ptr<const Model> model =
          load_model(io::ModelDirectory::open(folder.path()), *device);
      expect_as_alone(models::Setup(model, kernels::Compute::Fast));
    }
  }
}

} // namespace
} // namespace optiq::models
