#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/base/progress.h"
#include "optiq/kernels/device.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/plan_choice.h"
#include "optiq/quant/plan_options.h"
#include "optiq/quant/rank_agreement.h"
#include "optiq/quant/rounder.h"
#include "optiq/quant/scale_tuning.h"
#include "optiq/quant/share.h"

namespace optiq::quant {

struct ConvertOptions {
  std::filesystem::path source;
  std::filesystem::path output; // the model directory itself
  PlanOptions plan;
  /** That the model runs on where the calibration text is run. Only one with
   * gradients estimates or tunes, and only the CPU's model stays in its files
   * (max_ram). */
  kernels::Device* device = &kernels::cpu_device();
  /** `both`, by default: what a model writes itself is the text that it is sure
   * of, and no more of it than of other text. */
  CalibrationOptions calibration{.source = "both"};
  /** Nearest, or one that runs the calibration text. By default gptq where
   * widths are measured, which runs it anyway, and nearest elsewhere. */
  std::optional<Rounding> rounding;
  int tune_steps = 0; // TuningOptions::steps
  artifacts::SensitivityForm sensitivity = artifacts::SensitivityForm::Auto;
  std::optional<std::uint64_t> measure_budget; // of MeasurementOptions,
  std::optional<double> time_budget; // in forwards or in seconds
  /** Of the whole process, for as long as the conversion takes (RamLimit). */
  std::optional<std::uint64_t> max_ram;
  bool overwrite = false; // an existing model directory (StagedDirectory)
  bool dry_run = false; // writes nothing but save_plan
  std::optional<std::filesystem::path> save_plan;
  std::optional<std::filesystem::path> load_plan; // instead of measuring
};

/** What a conversion needs, as it is known before the writing. */
struct ConvertCost {
  std::uint64_t ram_bytes = 0; // at the peak, the process itself included
  std::uint64_t disk_bytes = 0; // of all files of the result
  std::optional<double> seconds; // estimated from short trials (dry run)
};

struct ConvertResult {
  artifacts::Metadata metadata;
  std::optional<artifacts::Sensitivity> sensitivity;
  std::optional<RankAgreement> agreement; // of estimates with measurements
  std::optional<TuningScores> tuning;
  std::optional<ExchangeCount> exchange; // where moves were tried
  std::uint64_t source_bytes = 0;
  std::uint64_t mtp_bytes = 0; // of optiq/mtp.safetensors, not in the plan
  ConvertCost cost;
  std::vector<std::string> notices; // what the user should know
};

/**
 * Converts a full-precision directory into a quantized MLX directory that
 * appears under its name only when it is complete and verified. Measures what
 * the cache of earlier measurements lacks. Two conversions with equal options
 * give equal bytes. Throws NotFound, InvalidInput, Unsupported, Corrupt,
 * Exhausted, Denied, Io, or what progress throws to cancel.
 */
ConvertResult convert(ConvertOptions options, const ProgressSink& progress);

struct ShareResult {
  ChunkRange chunks; // that are in the cache now
  std::size_t n_chunks = 0; // of the calibration text
  std::vector<std::string> notices;
};

/**
 * Measures a share of the calibration text, with equal options for all shares,
 * and keeps it in the cache: what is estimated, or of form exact measured, of
 * every matrix. A conversion beside the same cache then takes the shares from
 * there and measures what is missing; its bytes are the same. Only machines
 * whose devices compute alike (Device::arithmetic) share. Throws as convert
 * does, and Denied where the cache cannot be written.
 */
ShareResult measure_share(
    ConvertOptions options,
    const Share& share,
    const ProgressSink& progress);

} // namespace optiq::quant
