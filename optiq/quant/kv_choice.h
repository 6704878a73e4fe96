#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "optiq/artifacts/kv_config.h"
#include "optiq/base/progress.h"
#include "optiq/io/model_directory.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/kv_plan.h"
#include "optiq/quant/kv_sensitivity.h"

/** Chooses the K/V cache of a model and writes the two files that say so. */
namespace optiq::quant {

struct KvCacheOptions {
  std::filesystem::path output; // the folder
  bool overwrite = false;
  KvSearch search;
  KvTarget target;
  CalibrationOptions calibration = {.n_chunks = 5};
};

struct KvCacheResult {
  KvPlan plan;
  std::vector<artifacts::KvLayerSensitivity> sensitivity; // of plan.layers
  std::uint64_t values_per_token = 0; // of plan.layers, both sides
  double plan_bytes_per_token = 0; // of plan.layers
  double dense_bytes_per_token = 0; // of the same layers in bf16
  double kept_bytes_per_token = 0; // of layers that stay bf16
  std::string calibration_hash;
  std::vector<std::string> notices; // what the user should know
};

/** Measures what the cache of earlier measurements lacks, chooses, and writes
 * kv_config.json and kv_sensitivity.json into a folder that appears when it is
 * complete. An existing one is replaced with `overwrite` only, and only when
 * nothing else lies in it (StagedDirectory). Throws as convert. */
KvCacheResult choose_kv_cache(
    const std::shared_ptr<const models::Model>& model,
    const io::ModelDirectory& directory,
    KvCacheOptions options,
    const ProgressSink& progress);

} // namespace optiq::quant
