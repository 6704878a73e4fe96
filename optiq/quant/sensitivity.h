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
#include "optiq/quant/probes.h"

/** How much the model's output suffers when one matrix alone has fewer bits:
 * KL(reference || quantized) in nats, the mean over every position of every
 * chunk. */
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

struct SensitivityOptions : ProbeOptions {
  std::vector<std::string> modules; // to measure; names of model.modules()
  std::vector<int> candidate_bits;
  int group_size = 64;
};

/** One entry per module of options.modules, in that order. Measures what the
 * journal lacks; reports (stage "sensitivity") in rows times layers. */
std::vector<artifacts::LayerSensitivity> measure_sensitivity(
    const models::Setup& setup,
    const WeightSource& weight_of,
    const Calibration& calibration,
    const SensitivityOptions& options,
    SensitivityJournal& journal,
    const ProgressSink& progress);

/** As probe_work and probe_bytes of that measurement. */
std::uint64_t sensitivity_work(
    const models::Setup& setup,
    const Calibration& calibration,
    const SensitivityOptions& options);

std::uint64_t sensitivity_bytes(
    const models::Setup& setup,
    const Calibration& calibration,
    const SensitivityOptions& options);

} // namespace optiq::quant
