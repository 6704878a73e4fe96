#include <cstring>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/sequence_runner.h"
#include "support/tiny_model.h"

#include "optiq/kernels/device.h"
#include "optiq/models/setup.h"

namespace optiq {
namespace {

namespace mx = mlx::core;
using artifacts::KvLayer;
using kernels::Compute;

const std::shared_ptr<const models::Model>& tiny() {
  static const auto model = testing::load_tiny_model();
  return model;
}

/** The tiny model with these caches. */
models::Setup tiny(const std::vector<KvLayer>& kv, Compute compute) {
  return {tiny(), compute, kv};
}

/** The same widths for every attention layer. */
std::vector<KvLayer>
uniform(artifacts::KvMethod method, double key_bits, double value_bits) {
  std::vector<KvLayer> kv;
  for (const int layer : models::kv_layers(*tiny())) {
    kv.push_back(
        {.layer_idx = layer,
         .codec = {
             .method = method,
             .key_bits = key_bits,
             .value_bits = value_bits}});
  }
  return kv;
}

std::vector<float> values_of(const mx::array& x) {
  return {io::floats(x).begin(), io::floats(x).end()};
}

bool bit_equal(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() &&
      std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

TEST(Setup, QuantizesTheNamedLayersAlone) {
  const std::vector<int> layers = models::kv_layers(*tiny());
  ASSERT_GE(layers.size(), 2u);
  const KvLayer entry{
      .layer_idx = layers[1],
      .codec = {
          .method = artifacts::KvMethod::Turbo,
          .key_bits = 3.5,
          .value_bits = 2,
          .rotation = artifacts::KvRotation::Orthogonal,
          .seed = 7}};
  const auto dense = models::cache_layout(*tiny(), Compute::Exact);
  const auto layout = tiny({entry}, Compute::Exact).layout;
  ASSERT_EQ(layout.size(), dense.size());
  for (std::size_t i = 0; i < layout.size(); ++i) {
    const auto* format = std::get_if<kernels::KvFormat>(&layout[i]);
    if (format == nullptr) {
      continue;
    }
    const bool named = static_cast<int>(i) == layers[1];
    EXPECT_EQ(
        format->codec.method,
        named ? artifacts::KvMethod::Turbo : artifacts::KvMethod::Dense);
    EXPECT_TRUE(format->layout);
    if (named) {
      EXPECT_EQ(format->codec.key_bits, 3.5);
      EXPECT_EQ(format->codec.value_bits, 2);
      EXPECT_EQ(format->codec.rotation, kernels::KvRotation::Orthogonal);
      EXPECT_EQ(format->codec.seed, 7u + i);
      EXPECT_EQ(format->compute, Compute::Exact);
    }
  }
}

TEST(Setup, RefusesAConfigOfAnotherModel) {
  const auto refused = [](const std::vector<KvLayer>& kv,
                          const std::string& words) {
    test::expect_error(
        ErrorKind::InvalidInput, {words}, [&] { tiny(kv, Compute::Fast); });
  };
  const int layer = models::kv_layers(*tiny()).front();
  refused({{.layer_idx = 99}}, "found 99");
  refused({{.layer_idx = -1}}, "found -1");
  refused({{.layer_idx = 0}}, "without a K/V cache");
  refused({{.layer_idx = layer}, {.layer_idx = layer}}, "twice");
  test::expect_error(ErrorKind::Unsupported, {"7 bits"}, [&] {
    tiny(
        {{.layer_idx = layer,
          .codec = {.method = artifacts::KvMethod::Affine, .key_bits = 7}}},
        Compute::Fast);
  });
}

const std::vector<std::vector<KvLayer>>& configs() {
  static const std::vector<std::vector<KvLayer>> all{
      uniform(artifacts::KvMethod::Affine, 4, 4),
      uniform(artifacts::KvMethod::Affine, 8, 3),
      uniform(artifacts::KvMethod::Turbo, 4, 4),
      uniform(artifacts::KvMethod::Turbo, 2.5, 0)};
  return all;
}

TEST(Setup, ChunksDoNotChangeABitOfTheLogits) {
  const auto tokens = testing::arithmetic_tokens(300);
  for (const Compute compute : {Compute::Fast, Compute::Exact}) {
    for (const auto& kv : configs()) {
      const auto logits = [&](int chunk) {
        testing::SequenceRunner runner(
            tiny(kv, compute), {.prefill_chunk = chunk});
        const auto sequence = runner.new_sequence();
        return values_of(runner.extend(*sequence, tokens, 20));
      };
      const std::vector<float> whole = logits(512);
      EXPECT_TRUE(bit_equal(whole, logits(64)));
      EXPECT_TRUE(bit_equal(whole, logits(77)));
    }
  }
}

TEST(Setup, ABatchOfEightEqualsEachAlone) {
  const auto tokens = testing::arithmetic_tokens(400);
  const std::vector<std::size_t> lengths{1, 63, 64, 65, 130, 256, 300, 7};
  for (const auto& kv : configs()) {
    testing::SequenceRunner runner(tiny(kv, Compute::Fast), {});
    std::vector<std::unique_ptr<cache::Sequence>> together;
    std::vector<testing::SequenceRunner::Work> work;
    std::vector<float> alone;
    for (const std::size_t n : lengths) {
      const auto prompt = std::span(tokens).first(n);
      const auto next = std::span(tokens).subspan(n, 1);
      const auto mine = runner.new_sequence();
      runner.extend(*mine, prompt, 1);
      const auto y = values_of(runner.extend(*mine, next, 1));
      alone.insert(alone.end(), y.begin(), y.end());
      together.push_back(runner.new_sequence());
      runner.extend(*together.back(), prompt, 1);
      work.push_back({together.back().get(), next});
    }
    EXPECT_TRUE(bit_equal(values_of(runner.step(work)), alone));
  }
}

TEST(Setup, FewerBitsTakeFewerBytesAndMoreError) {
  const auto tokens = testing::arithmetic_tokens(256);
  const int vocab = tiny()->info().vocab_size;
  const auto run = [&](const std::vector<KvLayer>& kv) {
    const auto setup = tiny(kv, Compute::Exact);
    testing::SequenceRunner runner(setup, {});
    const auto sequence = runner.new_sequence();
    return std::pair{
        runner.extend(*sequence, tokens, 256),
        cache::bytes_per_token(setup.layout)};
  };
  const auto [reference, dense_bytes] = run({});
  for (const auto method :
       {artifacts::KvMethod::Affine, artifacts::KvMethod::Turbo}) {
    std::size_t bytes = dense_bytes;
    double kl = 0.0;
    for (const double bits : {5., 4., 3., 2.}) {
      const auto [logits, now] = run(uniform(method, bits, bits));
      ASSERT_EQ(logits.shape(1), vocab);
      double mean = 0.0;
      for (const double row :
           kernels::cpu_device().kl_divergence(reference, logits)) {
        mean += row / 256;
      }
      EXPECT_LT(now, bytes) << bits;
      EXPECT_GT(mean, kl) << bits;
      bytes = now;
      kl = mean;
    }
  }
}

} // namespace
} // namespace optiq
