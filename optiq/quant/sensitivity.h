#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/base/progress.h"
#include "optiq/models/model.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/sensitivity_journal.h"

/**
 * How much the model's output suffers when one matrix alone has fewer bits:
 * KL(reference || quantized) in nats, the mean over every position of every
 * chunk. Layers before the matrix are not run again: their output is kept.
 */
namespace optiq::quant {

namespace mx = mlx::core;

/** The weight of a module as convert will quantize it, [out, in]. */
using WeightSource = std::function<mx::array(const std::string& module)>;

/** The model with one module quantized as convert will write it. */
std::unique_ptr<models::Model> with_quantized(
    const models::Model& model,
    const WeightSource& weight_of,
    const std::string& module,
    int bits,
    int group_size);

struct SensitivityOptions {
  std::vector<std::string> modules; // to measure; names of model.modules()
  std::vector<int> candidate_bits;
  int group_size = 64;
  kernels::Compute compute = kernels::Compute::Exact;
  /** Bounds of the memory used beside the weights: the hidden states kept,
   * the reference's logits, and the activations of one forward. */
  std::size_t max_state_bytes = std::size_t{256} << 20;
  std::size_t max_logit_bytes = std::size_t{256} << 20;
  std::size_t max_activation_bytes = std::size_t{256} << 20;
};

/** One entry per module of options.modules, in that order. Measures what the
 * journal lacks; reports (stage "sensitivity") in rows times layers. */
std::vector<artifacts::LayerSensitivity> measure_sensitivity(
    const models::Model& model,
    const WeightSource& weight_of,
    const Calibration& calibration,
    const SensitivityOptions& options,
    SensitivityJournal& journal,
    const ProgressSink& progress);

/** Layer evaluations (rows x layers, the head counted as one) that a
 * measurement with an empty journal takes. */
std::uint64_t sensitivity_work(
    const models::Model& model,
    const Calibration& calibration,
    const SensitivityOptions& options);

/** Bytes that measuring needs beside the weights. */
std::uint64_t sensitivity_bytes(
    const models::Model& model,
    const Calibration& calibration,
    const SensitivityOptions& options);

} // namespace optiq::quant
