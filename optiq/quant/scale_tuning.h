#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "optiq/artifacts/metadata.h"
#include "optiq/base/progress.h"
#include "optiq/models/checkpoint.h"
#include "optiq/models/setup.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/rounder.h"

/**
 * Scales and biases of a quantized model by distillation (as MLX's DWQ): codes
 * stay, and Adam lowers KL(full precision || quantized) on the calibration
 * text. Of every group of weights w = scale (code - middle) + m two numbers are
 * learned,
 *
 *   scale = scale0 (1 + u),   m = m0 + scale0 (levels / 4) v,
 *
 * in which both move the weights alike, and relative to them, so that one
 * learning rate serves every matrix and width. What runs, is measured and kept
 * is what the file stores; gradients go past that rounding.
 *
 * Every chunk counts by its KL before the tuning: text that the model is sure
 * of as much as text that it is not. A quarter of the chunks is held out, and
 * the result is what was best there by the geometric mean over chunks: nothing
 * tuned, if nothing is better.
 */
namespace optiq::quant {

struct TuningOptions {
  int steps = 0;
  int batch_chunks = 2; // of a step
  float learning_rate = 3e-3F; // at the first step, then a cosine to 0
  std::uint64_t seed = 0; // of the order of chunks
  /** As FastOptions::max_kept_bytes. */
  std::size_t max_kept_bytes = std::size_t{64} << 20;
};

/** Mean KL of the held-out chunks, nats per token. */
struct TuningScores {
  int best_step = 0;
  double kl_before = 0;
  double kl_after = 0; // at the best step
};

struct TuningResult {
  TuningScores scores;
  std::map<std::string, kernels::AffineWeights> weights; // by module, if tuned
};

/**
 * Of the model that `reference` becomes with `layers` rounded by `rounder`.
 * Two runs give the same bits, whatever the number of threads. Reports stage
 * "tuning" in steps. Throws InvalidInput for fewer than two chunks, Unsupported
 * for a model that is not differentiated, Corrupt where a KL is no number.
 */
TuningResult tune_scales(
    const models::Setup& reference,
    const models::Checkpoint& checkpoint,
    std::span<const artifacts::LayerBits> layers,
    const Rounder& rounder,
    const Calibration& calibration,
    const TuningOptions& options,
    const ProgressSink& progress);

/** Gives what was tuned, and for other matrices what `rounder` does. */
Rounder tuned_rounder(
    std::map<std::string, kernels::AffineWeights> weights,
    Rounder rounder);

/** Layer evaluations, as probe_work counts them, that take as long. */
std::uint64_t tuning_work(
    const models::Model& model,
    const Calibration& calibration,
    const TuningOptions& options);

/** Bytes that it needs beside the full-precision weights. */
std::uint64_t tuning_bytes(
    const models::Model& model,
    const Calibration& calibration,
    std::span<const artifacts::LayerBits> layers,
    const TuningOptions& options);

} // namespace optiq::quant
