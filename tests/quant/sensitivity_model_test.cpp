#include <gtest/gtest.h>

#include "support/sequence_runner.h"
#include "support/tiny_model.h"

#include "optiq/kernels/quantize.h"
#include "optiq/models/checkpoint.h"
#include "optiq/quant/sensitivity.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

/** Logits of every position by the generator's road, in chunks of 48. */
mx::array full_forward(
    std::shared_ptr<const models::Model> model,
    const std::vector<std::int32_t>& tokens) {
  testing::SequenceRunner runner(
      {std::move(model), kernels::Compute::Exact}, {.prefill_chunk = 48});
  const auto sequence = runner.new_sequence();
  return runner.extend(*sequence, tokens, static_cast<int>(tokens.size()));
}

// Rows do not depend on their neighbours, so reusing the prefix, batching the
// chunks and cutting the logits must not change a single bit.
TEST(MeasureSensitivity, EqualsFullForwardsOfTinyBitForBit) {
  const auto directory = io::ModelDirectory::open(testing::tiny_model_path());
  const auto checkpoint = models::open_checkpoint(directory);
  const std::shared_ptr<const models::Model> model =
      models::load_model(directory);
  const auto tokens = testing::arithmetic_tokens(200);
  Calibration calibration;
  calibration.chunks = {
      {tokens.begin(), tokens.begin() + 96},
      {tokens.begin() + 96, tokens.begin() + 192},
      {tokens.begin() + 192, tokens.end()}};
  SensitivityOptions options;
  const std::string prefix = "language_model.model.";
  options.modules = {
      prefix + "embed_tokens",
      prefix + "layers.0.linear_attn.in_proj_a",
      prefix + "layers.3.self_attn.q_proj",
      prefix + "layers.7.mlp.down_proj"};
  options.candidate_bits = {3, 8};
  options.max_logit_bytes = std::size_t{4} << 20; // logits recomputed
  const MatrixMaker maker = matrix_maker(checkpoint, round_to_nearest);
  SensitivityJournal journal;
  measure_sensitivity(
      {model, kernels::Compute::Exact},
      maker,
      calibration,
      options,
      journal,
      {});
  for (const std::string& name : options.modules) {
    for (const int bits : options.candidate_bits) {
      const auto q = kernels::quantize_affine(
          checkpoint.at(name + ".weight").load(), bits, 64);
      const std::shared_ptr<const models::Model> changed = model->with_matrices(
          {{name,
            kernels::cpu_device().quantized(
                q.weight, q.scales, q.biases, bits, 64)}});
      for (int c = 0; c < 3; ++c) {
        const auto& chunk = calibration.chunks[c];
        double sum = 0;
        for (const double kl : kernels::cpu_device().kl_divergence(
                 full_forward(model, chunk), full_forward(changed, chunk))) {
          sum += kl;
        }
        EXPECT_EQ(
            journal.at(name, bits, c), sum / static_cast<double>(chunk.size()))
            << name << " " << bits;
      }
    }
    EXPECT_GT(journal.at(name, 3, 0), journal.at(name, 8, 0)) << name;
  }
}

} // namespace
} // namespace optiq::quant
