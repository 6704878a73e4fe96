#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/artifacts/training_log.h"
#include "optiq/base/progress.h"
#include "optiq/train/lora_trainer.h"

namespace optiq::train {

struct LoraRunOptions {
  std::filesystem::path output; // folder of the adapter
  bool overwrite = false; // an adapter that is there
  bool resume = false; // go on from it
  TrainerOptions trainer; // the run has its learning rate's total_steps
  int save_every = 100; // steps between checkpoints
  /** Stops when so many validations in a row were no better; 0: never. */
  int early_stopping = 0;
  std::string base_model; // for who loads the adapter
  /** An object of scalars: the record says them, and to go on they have to be
   * the same. */
  artifacts::Json settings;
};

struct LoraRunResult {
  std::vector<artifacts::TrainingStep> log;
  std::uint64_t parameters = 0;
  bool is_stopped_early = false;
  bool was_finished = false; // already, and nothing was done
};

/** Steps of `epochs` times the examples, rounded up; at least one. */
int steps_of(
    double epochs,
    std::size_t n_examples,
    const TrainerOptions& trainer);

/**
 * Trains an adapter and writes it as adapters::write_adapter does, with its
 * log, step by step. Every `save_every` steps it is measured on `valid` (where
 * there are such examples), and the output replaced as a whole by a checkpoint:
 * the adapter with the lowest validation loss so far, or the latest without
 * validation, the log, and the state of the training, which the last one leaves
 * out. A process that is killed leaves the output of a checkpoint; going on
 * from it gives the bytes of a training that nobody interrupted (seconds in the
 * log aside).
 *
 * When the sink throws Cancelled a checkpoint is written first. Throws as
 * LoraTrainer and StagedDirectory; NotFound, InvalidInput when there is nothing
 * to go on from or its settings differ, naming them; Exhausted, Denied, Io when
 * a checkpoint cannot be written: the one before is then as it was.
 */
LoraRunResult run_lora(
    const models::Setup& setup,
    const std::vector<ModuleRank>& plan,
    std::span<const Example> train,
    std::span<const Example> valid,
    const LoraRunOptions& options,
    const ProgressSink& sink = {});

} // namespace optiq::train
