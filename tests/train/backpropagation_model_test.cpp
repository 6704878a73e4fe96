#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/tiny_model.h"
#include "train/gradient_oracle.h"

#include "optiq/kernels/mlx/mlx_device.h"
#include "optiq/kernels/quantize.h"
#include "optiq/models/checkpoint.h"
#include "optiq/train/backpropagation.h"
#include "optiq/train/tape.h"

/** tiny-qwen3.5: delta nets, gated attention, a tied head. */
namespace optiq::train {
namespace {

using kernels::Compute;
using ModelPointer = std::shared_ptr<const models::Model>;

ModelPointer tiny_on(kernels::Device& device) {
  return models::load_model(
      io::ModelDirectory::open(testing::tiny_model_path()), device);
}

/** With matrices of several widths. */
ModelPointer quantized(const ModelPointer& model) {
  const auto checkpoint = models::open_checkpoint(
      io::ModelDirectory::open(testing::tiny_model_path()));
  const std::vector<int> widths{3, 4, 8, 2, 6, 5};
  std::size_t next = 0;
  models::MatricesByName matrices;
  for (const models::Module& module : model->modules()) {
    const int bits = widths[next++ % widths.size()];
    const auto q = kernels::quantize_affine(
        checkpoint.at(module.name + ".weight").load(), bits, 64);
    matrices.emplace(
        module.name,
        model->device().quantized(q.weight, q.scales, q.biases, bits, 64));
  }
  return model->with_matrices(matrices);
}

/** A learned model's gradients at its own text are small differences: a
 * random adapter makes it wrong. */
void expect_autograd(
    const ModelPointer& on_cpu,
    const ModelPointer& on_mlx,
    double bound) {
  const auto batch = examples_of(testing::arithmetic_tokens(60), {33, 20});
  const nn::Adapter adapter = adapter_of(*on_cpu);
  const auto expected =
      differentiate_by_mlx({on_mlx, Compute::Exact}, batch, adapter);
  expect_gradients(
      Backpropagation({on_cpu, Compute::Exact}, {.recomputes_layers = true})
          .run(batch, adapter),
      expected,
      bound);
}

TEST(Backpropagation, AgreesWithAutogradOnTiny) {
  // 8 layers, the states of delta nets through 33 tokens: as a random walk of
  // roundings 8 sqrt(160000) 2^-24.
  expect_autograd(
      tiny_on(kernels::cpu_device()), tiny_on(kernels::mlx_device()), 2e-4);
}

TEST(Backpropagation, AgreesWithAutogradOnQuantizedTiny) {
  // Two digits leave 5e-5 of a product: 60 of them each way, if all their
  // errors pointed the same way.
  const auto on_cpu = tiny_on(kernels::cpu_device());
  const auto on_mlx = tiny_on(kernels::mlx_device());
  expect_autograd(quantized(on_cpu), quantized(on_mlx), 6e-3);
}

double loss_of_forward(
    const models::Setup& setup,
    const Example& example,
    const nn::Adapter& adapter) {
  models::Forward forward(setup);
  forward.add_fresh(example.tokens, &adapter);
  std::vector<int> rows(example.tokens.size());
  std::iota(rows.begin(), rows.end(), 0);
  const mx::array logits = forward.logits(
      forward.run_layers(
          0, setup.model->info().n_layers, setup.model->embed(example.tokens)),
      rows);
  double loss = 0;
  const auto sums = kernels::cpu_device().log_sum_exp(logits);
  const auto picked = kernels::cpu_device().pick(logits, example.labels);
  for (std::size_t t = 0; t < rows.size(); ++t) {
    loss += double{example.weights[t]} * (sums[t] - double{picked[t]});
  }
  return loss;
}

// Of a step of noted operations, and of one of passed ones: behind what is
// trained all is noted, before it nothing.
TEST(Tape, ChangesNoBitOfAForward) {
  const models::Setup setup(
      quantized(tiny_on(kernels::cpu_device())), Compute::Exact);
  const nn::Adapter all = adapter_of(*setup.model);
  const auto batch = examples_of(testing::arithmetic_tokens(60), {59});
  Backpropagation backpropagation(setup);
  const std::string name = "language_model.model.layers.3.mlp.down_proj";
  for (const nn::Adapter& adapter :
       {nn::Adapter{},
        nn::Adapter{.updates = {{name, all.updates.at(name)}}},
        all}) {
    const double expected = loss_of_forward(setup, batch[0], adapter);
    EXPECT_EQ(backpropagation.run(batch, adapter).sum, expected);
    EXPECT_EQ(backpropagation.evaluate(batch, adapter).sum, expected);
  }
}

} // namespace
} // namespace optiq::train
