#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/base/progress.h"
#include "optiq/models/model.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/probes.h"
#include "optiq/quant/rounder.h"

/** How much the model's output suffers when one matrix alone has fewer bits:
 * KL(reference || quantized) in nats, the mean over every position of every
 * chunk. */
namespace optiq::quant {

struct SensitivityOptions : ProbeOptions {
  std::vector<std::string> modules; // to measure; names of model.modules()
  std::vector<int> candidate_bits;
  int group_size = artifacts::kDefaultGroupSize;
};

/** One entry per module of options.modules, in that order. Measures what the
 * journal lacks; reports (stage "sensitivity") in rows times layers. */
std::vector<artifacts::LayerSensitivity> measure_sensitivity(
    const models::Setup& setup,
    const MatrixMaker& make_matrix,
    const Calibration& calibration,
    const SensitivityOptions& options,
    SensitivityJournal& journal,
    const ProgressSink& progress);

/** Brings them into the journal: of options.chunks, and nothing is summed up.
 */
void measure_all_widths(
    const models::Setup& setup,
    const MatrixMaker& make_matrix,
    const Calibration& calibration,
    const SensitivityOptions& options,
    SensitivityJournal& journal,
    const ProgressSink& progress);

/** Modules and the widths that each is measured at. */
using WidthsByModule = std::map<std::string, std::vector<int>>;

/** Brings them into the journal, in groups of options.group_size; what else the
 * options name is not looked at. */
void measure_widths(
    const models::Setup& setup,
    const MatrixMaker& make_matrix,
    const Calibration& calibration,
    const SensitivityOptions& options,
    const WidthsByModule& widths,
    SensitivityJournal& journal,
    const ProgressSink& progress);

/** As probe_work of that, the reference's forward too. */
std::uint64_t widths_work(
    const models::Setup& setup,
    const Calibration& calibration,
    const WidthsByModule& widths);

/** What a complete journal, measured or estimated, says of the modules of
 * options.modules, in that order. */
std::vector<artifacts::LayerSensitivity> summarize_sensitivity(
    const models::Model& model,
    const Calibration& calibration,
    const SensitivityOptions& options,
    const SensitivityJournal& journal);

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
