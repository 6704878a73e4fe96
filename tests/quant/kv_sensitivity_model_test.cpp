#include <algorithm>

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "support/expect_error.h"
#include "support/sequence_runner.h"
#include "support/tiny_model.h"

#include "optiq/models/checkpoint.h"
#include "optiq/quant/kv_plan.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;
using artifacts::KvMethod;
using ModelPointer = std::shared_ptr<const models::Model>;

const std::vector<KvMethod> kBoth{KvMethod::Affine, KvMethod::Turbo};

const ModelPointer& tiny() {
  static const ModelPointer model = testing::load_tiny_model();
  return model;
}

models::Setup exact(
    const ModelPointer& model,
    const std::vector<artifacts::KvLayer>& kv = {}) {
  return {model, kernels::Compute::Exact, kv};
}

Calibration calibration_of(std::initializer_list<std::size_t> lengths) {
  const auto tokens = testing::arithmetic_tokens(400);
  Calibration calibration;
  auto at = tokens.begin();
  for (const std::size_t n : lengths) {
    calibration.chunks.emplace_back(at, at + n);
    at += n;
  }
  return calibration;
}

/** Logits of every position by the generator's road, in chunks of 48. */
mx::array full_forward(
    const models::Setup& setup,
    const std::vector<std::int32_t>& tokens) {
  testing::SequenceRunner runner(setup, {.prefill_chunk = 48});
  const auto sequence = runner.new_sequence();
  return runner.extend(*sequence, tokens, static_cast<int>(tokens.size()));
}

std::vector<mx::array> full_forwards(
    const models::Setup& setup,
    const Calibration& calibration) {
  std::vector<mx::array> logits;
  for (const auto& chunk : calibration.chunks) {
    logits.push_back(full_forward(setup, chunk));
  }
  return logits;
}

/** Mean over tokens of the KL from the reference's logits, chunk by chunk. */
double full_kl(
    const std::vector<mx::array>& reference,
    const std::vector<artifacts::KvLayer>& kv,
    const Calibration& calibration) {
  const auto changed = full_forwards(exact(tiny(), kv), calibration);
  double sum = 0;
  double weight = 0;
  for (std::size_t i = 0; i < changed.size(); ++i) {
    double chunk_sum = 0;
    for (const double kl :
         kernels::cpu_device().kl_divergence(reference[i], changed[i])) {
      chunk_sum += kl;
    }
    const auto n = static_cast<double>(calibration.chunks[i].size());
    sum += n * (chunk_sum / n);
    weight += n;
  }
  return sum / weight;
}

std::vector<KvMeasured> measure(
    const ModelPointer& model,
    const KvSearch& search,
    const Calibration& calibration) {
  SensitivityJournal journal;
  return measure_kv_sensitivity(
      exact(model),
      kv_offers(*model, search),
      calibration,
      search,
      {},
      journal,
      {});
}

// Chunks of the cache do not change a bit, and neither may the reuse of the
// layers before.
TEST(KvSensitivity, EqualsFullForwardsBitForBit) {
  const Calibration calibration = calibration_of({96, 70, 130});
  const auto reference = full_forwards(exact(tiny()), calibration);
  for (const bool split : {false, true}) {
    KvSearch search;
    search.methods = kBoth;
    search.candidate_bits = {2, 2.5, 4, 8};
    search.split = split;
    search.codec.rotation = artifacts::KvRotation::Orthogonal;
    search.codec.seed = 7;
    const auto measured = measure(tiny(), search, calibration);
    ASSERT_EQ(measured.size(), 2u);
    EXPECT_EQ(measured[0].layer.layer_idx, 3);
    EXPECT_EQ(measured[1].layer.layer_idx, 7);
    for (const KvMeasured& m : measured) {
      // Affine 2, 4, 8 and turbo 2, 2.5, 4; per side when split.
      ASSERT_EQ(m.layer.candidates.size(), split ? 12u : 6u);
      for (const artifacts::KvCandidate& c : m.layer.candidates) {
        EXPECT_EQ(c.codec.key_bits == 0 || c.codec.value_bits == 0, split);
        const artifacts::KvLayer kv{
            .layer_idx = m.layer.layer_idx,
            .codec = {
                .method = c.codec.method,
                .key_bits = c.codec.key_bits,
                .value_bits = c.codec.value_bits,
                .rotation = artifacts::KvRotation::Orthogonal,
                .seed = 7}};
        EXPECT_EQ(c.kl, full_kl(reference, {kv}, calibration))
            << m.layer.layer_idx << " " << name_of(c.codec.method) << " "
            << c.codec.key_bits << " " << c.codec.value_bits;
        EXPECT_GT(c.kl, 0);
      }
    }
  }
}

TEST(KvSensitivity, BytesAreThoseOfTheBlocks) {
  KvSearch search;
  search.methods = kBoth;
  search.candidate_bits = {1, 3, 4};
  for (const KvLayerOffers& layer : kv_offers(*tiny(), search)) {
    EXPECT_EQ(layer.dense_bytes, 64u * 2 * 2 * 64 * 2); // 2 heads of 64, bf16
    for (const KvOffer& offer : layer.offers) {
      const auto layout = models::cache_layout(
          *tiny(),
          kernels::Compute::Fast,
          {kv_layer(
              search, layer.layer_idx, offer.method, offer.bits, offer.bits)});
      EXPECT_EQ(
          offer.key_bytes + offer.value_bytes,
          std::get<kernels::KvFormat>(layout[layer.layer_idx]).block_bytes());
    }
  }
}

TEST(KvSensitivity, AWidthIsOfferedByTheMethodsThatHaveIt) {
  KvSearch search;
  search.methods = kBoth;
  search.candidate_bits = {1, 3.5, 4, 6};
  for (const KvLayerOffers& layer : kv_offers(*tiny(), search)) {
    std::vector<std::pair<KvMethod, double>> found;
    for (const KvOffer& offer : layer.offers) {
      found.emplace_back(offer.method, offer.bits);
    }
    EXPECT_EQ(
        found,
        (std::vector<std::pair<KvMethod, double>>{
            {KvMethod::Affine, 4},
            {KvMethod::Affine, 6},
            {KvMethod::Turbo, 1},
            {KvMethod::Turbo, 3.5},
            {KvMethod::Turbo, 4}}));
  }
  const auto refused = [](const std::vector<KvMethod>& methods,
                          double bits,
                          std::initializer_list<std::string> words) {
    KvSearch bad;
    bad.methods = methods;
    bad.candidate_bits = {4, bits, 9};
    test::expect_error(
        ErrorKind::Unsupported, words, [&] { kv_offers(*tiny(), bad); });
  };
  refused(kBoth, 7, {"found 7, which", "affine at 7 bits", "turbo at 7 bits"});
  refused({KvMethod::Turbo}, 8, {"found 8, which", "turbo at 8 bits"});
  refused({KvMethod::Affine}, 2.5, {"found 2.5, which", "affine at 2.5 bits"});
}

/** The model with the output of a layer's attention scaled. */
ModelPointer
with_attention_scaled(const ModelPointer& model, int layer, float scale) {
  const auto directory = io::ModelDirectory::open(testing::tiny_model_path());
  const auto checkpoint = models::open_checkpoint(directory);
  const std::string name = "language_model.model.layers." +
      std::to_string(layer) + ".self_attn.o_proj";
  const mx::array weight = checkpoint.at(name + ".weight").load();
  return model->with_matrices(
      {{name,
        kernels::cpu_device().dense(io::materialize(
            mx::astype(weight * mx::array(scale), mx::bfloat16)))}});
}

// What a layer's cache costs follows what its attention adds to the output.
TEST(KvPlan, WidthsFollowAPlantedSensitivity) {
  const Calibration calibration = calibration_of({128, 128});
  for (const bool split : {false, true}) {
    for (const int deaf : {3, 7}) {
      const ModelPointer model = with_attention_scaled(tiny(), deaf, 0.01f);
      KvSearch search;
      search.candidate_bits = {2, 8};
      search.split = split;
      const auto layers = kv_offers(*model, search);
      const auto measured = measure(model, search, calibration);
      const std::uint64_t budget = kv_budget(layers, search, {.bits = 5});
      const KvPlan plan = select_kv_plan(
          exact(model),
          calibration,
          make_kv_plans(layers, measured, search, budget),
          {});
      ASSERT_EQ(plan.layers.size(), 2u);
      for (const artifacts::KvLayer& layer : plan.layers) {
        const double expected = layer.layer_idx == deaf ? 2 : 8;
        EXPECT_EQ(layer.codec.key_bits, expected) << deaf << " " << split;
        EXPECT_EQ(layer.codec.value_bits, expected) << deaf << " " << split;
      }
      EXPECT_LE(plan.block_bytes, budget);
    }
  }
}

TEST(KvPlan, TheBestOfTheWholeModelsIsTaken) {
  const Calibration calibration = calibration_of({128, 100});
  const auto plan_of = [](double bits) {
    KvPlan plan;
    for (const int layer : {3, 7}) {
      plan.layers.push_back(
          {.layer_idx = layer,
           .codec = {
               .method = KvMethod::Affine,
               .key_bits = bits,
               .value_bits = bits}});
    }
    return plan;
  };
  const KvPlan best = select_kv_plan(
      exact(tiny()), calibration, {plan_of(2), plan_of(8), plan_of(4)}, {});
  EXPECT_EQ(best.layers.front().codec.key_bits, 8);
  EXPECT_EQ(
      best.measured_kl,
      full_kl(
          full_forwards(exact(tiny()), calibration), best.layers, calibration));
}

TEST(KvSensitivity, RefusesACacheWithoutEffect) {
  const ModelPointer model =
      with_attention_scaled(with_attention_scaled(tiny(), 3, 0), 7, 0);
  test::expect_error(ErrorKind::InvalidInput, {"found 0.0e+00"}, [&] {
    measure(model, {}, calibration_of({64}));
  });
}

} // namespace
} // namespace optiq::quant
