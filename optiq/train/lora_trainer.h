#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "optiq/base/progress.h"
#include "optiq/models/setup.h"
#include "optiq/nn/forward_context.h"
#include "optiq/train/adamw.h"
#include "optiq/train/backpropagation.h"
#include "optiq/train/rank_plan.h"

namespace optiq::train {

struct TrainerOptions {
  LearningRate learning_rate;
  AdamOptions adam;
  float clip = 1.f; // largest norm of the gradient; 0: any
  float dropout = 0.f; // rate, of what the updates read
  int batch_size = 4; // examples of one forward
  int accumulation = 1; // forwards of one step
  std::uint64_t seed = 0;
  bool recomputes_layers = false; // BackpropagationOptions
};

/** What a step did. */
struct StepReport {
  int step = 0; // from 1
  double loss = 0; // mean over the learned tokens, nats
  double gradient_norm = 0; // before it was clipped
  float learning_rate = 0;
  std::uint64_t tokens = 0; // that went through the model
  double learned = 0; // tokens' weight
};

/** A module's low-rank matrices with the means of AdamW, on the host. */
struct TrainedModule {
  ModuleRank shape;
  std::vector<float> a; // [rank, in]
  std::vector<float> b; // [rank, out]: B transposed
  std::vector<float> a_mean; // of gradients, as a
  std::vector<float> a_square;
  std::vector<float> b_mean; // as b
  std::vector<float> b_square;
};

/**
 * Trains an adapter (LoRA, arXiv 2106.09685) on a model that stays as it is. A
 * begins uniform in +-in^-0.5, B at zero. Everything that is drawn follows from
 * the seed and the number of the step, so training continued from a saved state
 * gives the bits of training that went on.
 */
class LoraTrainer {
 public:
  /** `examples` outlive it. Throws InvalidInput for no examples or options out
   * of range, and as Backpropagation. */
  LoraTrainer(
      const models::Setup& setup,
      const std::vector<ModuleRank>& plan,
      std::span<const Example> examples,
      const TrainerOptions& options);

  /** Throws InvalidInput when the loss or its gradient is not finite; all is
   * then as before the step. */
  StepReport step();
  /** Mean loss per learned token, nats, without dropout. The sink hears of
   * every batch. */
  double evaluate(
      std::span<const Example> examples,
      const ProgressSink& sink = {});

  int steps_done() const {
    return steps_done_;
  }
  const std::vector<TrainedModule>& modules() const {
    return modules_;
  }
  /** On the model's device; of the last step. */
  const nn::Adapter& adapter() const {
    return adapter_;
  }

  /** Writes the state as a new file. Throws Exhausted, Denied, Io. */
  void save(const std::filesystem::path& file) const;
  /** Continues from a saved state. Throws InvalidInput for one of other
   * settings, ranks or examples; NotFound, Corrupt. */
  void resume(const std::filesystem::path& file);

 private:
  /** Gradients as they are added up, in the order of modules_. */
  struct Sum {
    Loss loss; // without gradients
    std::uint64_t tokens = 0;
    std::vector<std::vector<float>> a;
    std::vector<std::vector<float>> b;
  };

  std::string settings() const;
  /** Examples `first` and following of the endless shuffled series. */
  std::vector<Example> batch_from(std::uint64_t first, int n);
  /** Forward `number` of the training, and back. */
  void
  add_batch(std::span<const Example> batch, std::uint64_t number, Sum& sum);
  void upload();

  models::Setup setup_;
  TrainerOptions options_;
  std::span<const Example> examples_;
  std::string examples_hash_;
  std::vector<TrainedModule> modules_;
  Backpropagation backpropagation_;
  nn::Adapter adapter_;
  int steps_done_ = 0;
  std::uint64_t epoch_ = 0; // of order_
  std::vector<std::size_t> order_; // of the examples
};

} // namespace optiq::train
