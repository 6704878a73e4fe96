#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "optiq/models/setup.h"
#include "optiq/nn/forward_context.h"
#include "optiq/train/tape.h"

namespace optiq::train {

/** A sequence and what each of its tokens is to be followed by: row t costs
 * weight[t] * -log p(label[t]). Of weight 0 a label is not looked at, and its
 * logits are not computed. */
struct Example {
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> labels; // one per token
  std::vector<float> weights; // the same
};

/** dL/dA and dL/dB of one module. */
struct LowRankGradient {
  mx::array a; // [rank, in]
  mx::array b; // [rank, out]: of B transposed, as nn::LowRank has it
};

struct Loss {
  double sum = 0; // of weight * -log p(label), nats
  double weight = 0; // of all rows
  std::map<std::string, LowRankGradient, std::less<>> gradients; // by module
};

/** Draws a label for each of some rows of logits [T, vocab_size], the first of
 * which is row `first_row` of the batch's rows that cost something. */
using LabelSampler = std::function<
    std::vector<std::int32_t>(const mx::array& logits, int first_row)>;

/** What some rows of logits [T, vocab_size] cost with weights [T], the first of
 * which is row `first_row` of the batch's rows that cost something. */
using LossOfLogits = std::function<kernels::LogitLoss(
    const mx::array& logits,
    int first_row,
    std::span<const float> weights)>;

/** What else a forward and its way back do. */
struct PassOptions {
  /** Sees every use of a matrix, from the last layer to the first. */
  WeightVisitor visitor = {};
  /** Its labels stand for the examples'. */
  LabelSampler sampler = {};
  /** Instead of the labels' cross entropy; they are not looked at. */
  LossOfLogits loss = {};
  /** In the adapter; its masks do depend on the neighbours of a sequence. */
  DropoutOptions dropout = {};
};

struct BackpropagationOptions {
  /** Gradient checkpointing (arXiv 1604.06174): of every layer only its input
   * is kept, and the layer runs again on the way back. */
  bool recomputes_layers = false;
  /** Whose logits are there at once. The head is unpacked anew for each such
   * part: of 8 bits that takes a fifth of its gradient at 64 rows. */
  int logit_rows = 128;
};

/**
 * The loss of a model on packed sequences, and its gradients: for an adapter,
 * and by a visitor for every matrix. The forward is the model's own on a tape;
 * the batch is ragged, without padding. Neither the neighbours of a sequence
 * nor the number of threads change a bit of what it adds on the CPU device.
 */
class Backpropagation {
 public:
  /** Throws Unsupported for a device or a model that cannot. */
  explicit Backpropagation(
      const models::Setup& setup,
      BackpropagationOptions options = {});
  Backpropagation(const Backpropagation&) = delete;
  Backpropagation& operator=(const Backpropagation&) = delete;

  /** Throws InvalidInput for an example of other lengths, without tokens, or a
   * token outside the vocabulary; NotFound for a module that the model lacks.
   */
  Loss run(
      std::span<const Example> batch,
      const nn::Adapter& adapter,
      const PassOptions& options = {});
  /** Loss only. */
  Loss evaluate(std::span<const Example> batch, const nn::Adapter& adapter);

 private:
  class Step;
  /** Those that the tape has, when they are there. */
  void take_gradients(const nn::Adapter& adapter, Loss& loss);

  models::Setup setup_; // the model on its own device
  BackpropagationOptions options_;
  Tape tape_;
  models::Setup noted_; // the same on the tape
};

} // namespace optiq::train
