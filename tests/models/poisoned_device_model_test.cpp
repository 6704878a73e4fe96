#include <gtest/gtest.h>

#include "support/kernel_checks.h"
#include "support/poisoned_device.h"
#include "support/sequence_runner.h"
#include "support/tiny_model.h"

#include "optiq/eval/kl.h"
#include "optiq/generate/generator.h"
#include "optiq/kernels/quantize.h"
#include "optiq/models/checkpoint.h"
#include "optiq/quant/fast_sensitivity.h"
#include "optiq/quant/sensitivity.h"
#include "optiq/train/backpropagation.h"

namespace optiq::testing {
namespace {

using kernels::Compute;
using ModelPointer = std::shared_ptr<const models::Model>;

// It outlives every model and pool that a test leaves behind.
PoisonedDevice& poisoned() {
  static auto* device = new PoisonedDevice;
  return *device;
}

const ModelPointer& on_cpu() {
  static const ModelPointer model = load_tiny_model();
  return model;
}

const ModelPointer& behind_the_wall() {
  static const ModelPointer model = models::load_model(
      io::ModelDirectory::open(tiny_model_path()), poisoned());
  return model;
}

TEST(PoisonedDeviceDeathTest, AReadEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::vector<std::int32_t> tokens{1, 2, 3};
  EXPECT_DEATH(
      {
        const mx::array x = behind_the_wall()->embed(tokens);
        volatile float value = io::floats(x)[0];
        (void)value;
      },
      "");
}

TEST(PoisonedDevice, RefusesAnArrayOfTheHost) {
  EXPECT_THROW(
      poisoned().scale(io::make_array({2, 2}, mx::float32), 2.f), Error);
}

TEST(PoisonedDevice, LogitsInChunksAndTokenByToken) {
  const auto tokens = arithmetic_tokens(150);
  const auto logits_of = [&](const ModelPointer& model) {
    testing::SequenceRunner engine(
        {model, Compute::Exact}, {.prefill_chunk = 48});
    const auto sequence = engine.new_sequence();
    const auto prompt = std::span(tokens).first(140);
    const kernels::HostRows rows =
        model->device().to_host(engine.extend(*sequence, prompt, 140));
    std::vector<float> all(rows.all().begin(), rows.all().end());
    for (const std::int32_t token : std::span(tokens).subspan(140)) {
      const kernels::HostRows row =
          model->device().to_host(engine.extend(*sequence, {&token, 1}, 1));
      all.insert(all.end(), row.all().begin(), row.all().end());
    }
    return all;
  };
  EXPECT_EQ(logits_of(behind_the_wall()), logits_of(on_cpu()));
}

TEST(PoisonedDevice, AnswersOfABatch) {
  const auto tokens = arithmetic_tokens(90);
  const std::vector<std::vector<std::int32_t>> prompts{
      {tokens.begin(), tokens.begin() + 80},
      {tokens.begin(), tokens.begin() + 70},
      {tokens.begin() + 80, tokens.end()}};
  const auto answers_of = [&](const ModelPointer& model) {
    generate::Engine engine(
        {model, Compute::Fast}, {.prefill_chunk = 32, .max_running = 2});
    std::vector<std::vector<std::int32_t>> answers;
    for (const generate::Completion& completion : generate::generate_batch(
             engine,
             prompts,
             {.max_tokens = 6, .sampler = {.temperature = 0.7f, .seed = 3}})) {
      answers.push_back(completion.tokens);
    }
    return answers;
  };
  EXPECT_EQ(answers_of(behind_the_wall()), answers_of(on_cpu()));
}

TEST(PoisonedDevice, KlAndASensitivityProbe) {
  const auto tokens = arithmetic_tokens(96);
  const auto checkpoint =
      models::open_checkpoint(io::ModelDirectory::open(tiny_model_path()));
  const std::string module = "language_model.model.layers.3.self_attn.q_proj";
  const std::vector<eval::TokenRow> rows{
      {tokens.begin(), tokens.begin() + 50},
      {tokens.begin() + 50, tokens.end()}};
  const auto measured_on = [&](const ModelPointer& model) {
    const auto q = kernels::quantize_affine(
        checkpoint.at(module + ".weight").load(), 3, 64);
    const models::Setup setup(model, Compute::Exact);
    const models::Setup changed = setup.with_model(model->with_matrices(
        {{module,
          model->device().quantized(q.weight, q.scales, q.biases, 3, 64)}}));
    std::vector<double> figures{
        eval::measure_kl(setup, changed, rows, {}).mean_kl};
    quant::Calibration calibration;
    calibration.chunks = {{tokens.begin(), tokens.end()}};
    quant::SensitivityOptions options;
    options.modules = {module};
    options.candidate_bits = {3};
    quant::SensitivityJournal journal;
    quant::measure_sensitivity(
        setup,
        quant::matrix_maker(
            checkpoint, quant::round_to_nearest, model->device()),
        calibration,
        options,
        journal,
        {});
    figures.push_back(journal.at(module, 3, 0));
    return figures;
  };
  const auto expected = measured_on(on_cpu());
  EXPECT_GT(expected[0], 0);
  EXPECT_EQ(measured_on(behind_the_wall()), expected);
}

TEST(PoisonedDevice, SensitivityFromGradients) {
  const auto tokens = arithmetic_tokens(48);
  const auto checkpoint =
      models::open_checkpoint(io::ModelDirectory::open(tiny_model_path()));
  const auto estimated_on = [&](const ModelPointer& model) {
    const models::Setup setup(model, Compute::Exact);
    quant::Calibration calibration;
    calibration.chunks = {tokens};
    quant::FastOptions options;
    options.candidate_bits = {4};
    for (const models::Module& module : model->modules()) {
      options.modules.push_back(module.name);
    }
    quant::SensitivityJournal journal;
    const std::vector<quant::GroupJournal> journals{{64, &journal}};
    quant::estimate_sensitivity(
        setup,
        quant::matrix_maker(
            checkpoint, quant::round_to_nearest, model->device()),
        calibration,
        options,
        journals,
        {});
    std::vector<double> figures;
    for (const std::string& module : options.modules) {
      figures.push_back(journal.at(module, 4, 0));
    }
    return figures;
  };
  // Tiles of gradients are larger there, which changes no bit.
  EXPECT_EQ(estimated_on(behind_the_wall()), estimated_on(on_cpu()));
}

TEST(PoisonedDevice, GradientsOfAnAdapter) {
  const auto tokens = arithmetic_tokens(40);
  const std::vector<train::Example> batch{
      {{tokens.begin(), tokens.end() - 1},
       {tokens.begin() + 1, tokens.end()},
       std::vector<float>(tokens.size() - 1, 1.f)}};
  const auto differentiated_on = [&](const ModelPointer& model,
                                     bool recomputes) {
    kernels::Device& device = model->device();
    nn::Adapter adapter;
    for (const models::Module& module : model->modules()) {
      if (module.id.layer < 0) {
        continue;
      }
      const auto random = [&](int rows, int width) {
        return device.upload(normal_array({rows, width}, 7, 0.1f));
      };
      adapter.updates.insert(
          {module.name,
           {random(2, module.matrix.in_features()),
            random(2, module.matrix.out_features()),
            0.5f}});
    }
    const models::Setup setup(model, Compute::Exact);
    train::Backpropagation backpropagation(
        setup, {.recomputes_layers = recomputes});
    const train::Loss loss = backpropagation.run(
        batch, adapter, {.dropout = {.rate = 0.1f, .seed = 3}});
    std::vector<float> all{static_cast<float>(loss.sum)};
    for (const auto& [name, gradient] : loss.gradients) {
      for (const mx::array& x : {gradient.a, gradient.b}) {
        const kernels::HostRows rows = device.to_host(x);
        all.insert(all.end(), rows.all().begin(), rows.all().end());
      }
    }
    return all;
  };
  const std::vector<float> expected = differentiated_on(on_cpu(), false);
  EXPECT_GT(expected.size(), 1000U);
  EXPECT_EQ(differentiated_on(behind_the_wall(), false), expected);
  EXPECT_EQ(differentiated_on(behind_the_wall(), true), expected);
}

} // namespace
} // namespace optiq::testing
