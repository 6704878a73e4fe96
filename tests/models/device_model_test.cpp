#include <gtest/gtest.h>

#include "kernels/device_checks.h"
#include "support/sequence_runner.h"
#include "support/tiny_model.h"

#include "optiq/base/error.h"
#include "optiq/kernels/quantize.h"
#include "optiq/models/checkpoint.h"
#include "optiq/models/setup.h"

namespace optiq::testing {
namespace {

namespace mx = mlx::core;

using artifacts::KvMethod;
using kernels::Compute;
using ModelPointer = std::shared_ptr<const models::Model>;

constexpr double kBound = 1e-6; // mean KL, nats

ModelPointer tiny_on(kernels::Device& device) {
  return models::load_model(
      io::ModelDirectory::open(tiny_model_path()), device);
}

/** tiny-qwen3.5 with matrices of several widths and groups. */
ModelPointer mixed_widths(const ModelPointer& model) {
  const auto checkpoint =
      models::open_checkpoint(io::ModelDirectory::open(tiny_model_path()));
  const std::vector<std::pair<int, int>> widths{
      {3, 64}, {4, 32}, {8, 128}, {2, 64}, {6, 32}, {5, 64}};
  std::size_t next = 0;
  models::MatricesByName matrices;
  for (const models::Module& module : model->modules()) {
    const auto [bits, group] = widths[next++ % widths.size()];
    if (module.matrix.in_features() % group == 0) {
      const auto q = kernels::quantize_affine(
          checkpoint.at(module.name + ".weight").load(), bits, group);
      matrices.emplace(
          module.name,
          model->device().quantized(q.weight, q.scales, q.biases, bits, group));
    }
  }
  return model->with_matrices(matrices);
}

std::vector<artifacts::KvLayer> quantized_caches(
    const models::Model& model,
    KvMethod method,
    double keys,
    double values) {
  std::vector<artifacts::KvLayer> layers;
  for (const int layer : models::kv_layers(model)) {
    layers.push_back(
        {.layer_idx = layer,
         .codec = {.method = method, .key_bits = keys, .value_bits = values}});
  }
  return layers;
}

constexpr int kTokens = 75; // more than a block of K/V

/** Logits of all tokens: prefilled in chunks, then token by token. */
mx::array logits_of(const models::Setup& setup) {
  const auto tokens = arithmetic_tokens(kTokens);
  testing::SequenceRunner runner(setup, {.prefill_chunk = 40});
  const auto sequence = runner.new_sequence();
  std::vector<float> all;
  const auto extend = [&](std::span<const std::int32_t> part) {
    const kernels::HostRows rows = setup.model->device().to_host(
        runner.extend(*sequence, part, static_cast<int>(part.size())));
    all.insert(all.end(), rows.all().begin(), rows.all().end());
  };
  extend(std::span(tokens).first(70));
  for (std::size_t i = 70; i < tokens.size(); ++i) {
    extend({&tokens[i], 1});
  }
  return mx::array(all.data(), {kTokens, setup.model->info().vocab_size});
}

double mean_kl(const mx::array& reference, const mx::array& logits) {
  double sum = 0;
  for (const double kl :
       kernels::cpu_device().kl_divergence(reference, logits)) {
    sum += kl;
  }
  return sum / reference.shape(0);
}

const ModelPointer& on_cpu() {
  static const ModelPointer model = tiny_on(kernels::cpu_device());
  return model;
}

const ModelPointer& on_other() {
  static const ModelPointer model = tiny_on(kernels::compared_device());
  return model;
}

const mx::array& expected_logits() {
  static const mx::array logits = logits_of({on_cpu(), Compute::Exact});
  return logits;
}

TEST(DeviceModel, RunsTinyAsTheCpuDoes) {
  EXPECT_NE(&on_other()->device(), &kernels::cpu_device());
  const mx::array found = logits_of({on_other(), Compute::Exact});
  EXPECT_LE(mean_kl(expected_logits(), found), kBound);
}

TEST(DeviceModel, RunsMixedWidths) {
  const mx::array expected =
      logits_of({mixed_widths(on_cpu()), Compute::Exact});
  const mx::array found = logits_of({mixed_widths(on_other()), Compute::Exact});
  EXPECT_LE(mean_kl(expected, found), kBound);
  EXPECT_GT(mean_kl(expected_logits(), found), 1e-3);
}

TEST(DeviceModel, RunsQuantizedCaches) {
  for (const auto& [method, keys, values] :
       {std::tuple{KvMethod::Affine, 4.0, 3.0}, {KvMethod::Turbo, 3.5, 2.0}}) {
    const auto run = [method = method, keys = keys, values = values](
                         const ModelPointer& model) {
      return logits_of(
          {model,
           Compute::Exact,
           quantized_caches(*model, method, keys, values)});
    };
    const mx::array found = run(on_other());
    EXPECT_LE(mean_kl(run(on_cpu()), found), kBound) << keys;
    EXPECT_GT(mean_kl(expected_logits(), found), 1e-5)
        << keys; // it was quantized
  }
}

// On MLX's CPU device `fast` computes in float32 too, beside K/V in bfloat16.
TEST(DeviceModel, RunsFastAndRefusesInt8) {
  const double kl =
      mean_kl(expected_logits(), logits_of({on_other(), Compute::Fast}));
  EXPECT_GT(kl, 0);
  EXPECT_LE(kl, 1e-4);
  EXPECT_THROW(logits_of({on_other(), Compute::Int8}), Error);
}

} // namespace
} // namespace optiq::testing
