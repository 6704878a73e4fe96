#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "optiq/train/lora_trainer.h"

/**
 * A training state is a safetensors file: of every module the float32 tensors
 * <module>.lora_a [rank, in] and .lora_b [rank, out] (B transposed), and of
 * each the running means of AdamW, <tensor>.mean and <tensor>.square. Its
 * metadata: "format" "optiq-training-1", "step", and "settings", JSON.
 */
namespace optiq::train {

struct TrainingProgress {
  std::string settings;
  int steps_done = 0;
};

void save_training_state(
    const TrainingProgress& progress,
    const std::vector<TrainedModule>& modules,
    const std::filesystem::path& path);

/** Into modules of the same names and shapes. Throws InvalidInput where the
 * file has others; Corrupt for a file that is no state. */
TrainingProgress load_training_state(
    const std::filesystem::path& path,
    std::vector<TrainedModule>& modules);

} // namespace optiq::train
