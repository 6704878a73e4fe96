#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "optiq/base/progress.h"
#include "optiq/quant/calibration.h"

namespace optiq::quant {

struct FuseOptions {
  std::filesystem::path model; // dense or quantized
  std::filesystem::path adapter;
  std::filesystem::path output; // the model directory itself
  bool overwrite = false; // an existing model directory (StagedDirectory)
  CalibrationOptions text{.n_chunks = 4}; // to measure on
};

struct FuseResult {
  std::size_t modules = 0; // that the adapter changed
  std::uint64_t file_bytes = 0; // of model*.safetensors
  /** KL(model with the adapter || the fused model), mean over tokens, nats:
   * what rounding the sums to the model's widths costs. */
  double mean_kl = 0;
  std::uint64_t tokens = 0; // that it was measured on
  std::vector<std::string> notices;
};

/**
 * Writes a model whose weights are W + scale B A, in the form that the model
 * has: adapted matrices are rounded to their widths again, all other tensors
 * are the model's, bit for bit. The directory appears when it is complete and
 * measured. What was measured of the model does not hold for it, and is left
 * out (optiq/metadata.json, optiq/sensitivity.json), as is an MTP head. Throws
 * as adapters::open_adapter, load_model and StagedDirectory.
 */
FuseResult fuse_adapter(
    const FuseOptions& options,
    const ProgressSink& progress);

} // namespace optiq::quant
