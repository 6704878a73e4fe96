#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/base/progress.h"
#include "optiq/models/setup.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/rounder.h"
#include "optiq/quant/sensitivity.h"

namespace optiq::quant {

struct MeasurementOptions : SensitivityOptions {
  artifacts::SensitivityForm form = artifacts::SensitivityForm::Exact;
  std::uint64_t seed = 0; // of the labels that an estimate draws
  Rounding rounding = Rounding::Nearest; // that the matrices are made with
};

/** How sensitivity comes about, in one of its forms: what is in the cache of
 * earlier measurements is taken from there, and what is made goes there. */
class Measurement {
 public:
  /** References outlive it. */
  Measurement(
      const models::Setup& setup,
      const Calibration& calibration,
      MeasurementOptions options);

  /** Bytes that it needs beside the weights. */
  std::uint64_t bytes() const;
  /** As probe_work, of what it takes with an empty cache. */
  std::uint64_t work() const;

  /** Looks into the cache: false where something still has to be made. */
  bool open_complete(const std::string& model_digest);
  /** Opens the cache, or makes a place in memory, with a notice. */
  void open(const std::string& model_digest, std::vector<std::string>& notices);
  /** Makes what is missing. */
  artifacts::Sensitivity run(
      const MatrixMaker& make_matrix,
      const ProgressSink& progress);

 private:
  std::string key_of(const std::string& model_digest) const;
  bool is_complete() const;

  const models::Setup& setup_;
  const Calibration& calibration_;
  MeasurementOptions options_;
  std::string key_;
  std::unique_ptr<SensitivityJournal> journal_;
};

} // namespace optiq::quant
