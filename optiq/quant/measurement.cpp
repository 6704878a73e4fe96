#include "optiq/quant/measurement.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "optiq/quant/fast_sensitivity.h"

namespace optiq::quant {
namespace {

using artifacts::SensitivityForm;

FastOptions fast_options(const MeasurementOptions& options) {
  return {
      .modules = options.modules,
      .candidate_bits = options.candidate_bits,
      .seed = options.seed};
}

} // namespace

Measurement::Measurement(
    const models::Setup& setup,
    const Calibration& calibration,
    MeasurementOptions options)
    : setup_(setup), calibration_(calibration), options_(std::move(options)) {}

std::uint64_t Measurement::bytes() const {
  return options_.form == SensitivityForm::Exact
      ? sensitivity_bytes(setup_, calibration_, options_)
      : fast_sensitivity_bytes(
            *setup_.model,
            calibration_,
            fast_options(options_),
            {&options_.group_size, 1});
}

std::uint64_t Measurement::work() const {
  return options_.form == SensitivityForm::Exact
      ? sensitivity_work(setup_, calibration_, options_)
      : fast_sensitivity_work(*setup_.model, calibration_);
}

bool Measurement::open_complete(const std::string& model_digest) {
  key_ = key_of(model_digest);
  const std::filesystem::path path = sensitivity_journal_path(key_);
  if (!std::filesystem::exists(path)) {
    return false;
  }
  journal_ = std::make_unique<SensitivityJournal>(path, key_);
  return is_complete();
}

void Measurement::open(
    const std::string& model_digest,
    std::vector<std::string>& notices) {
  key_ = key_of(model_digest);
  journal_ = open_sensitivity_journal(key_, notices);
}

artifacts::Sensitivity Measurement::run(
    const MatrixMaker& make_matrix,
    const ProgressSink& progress) {
  artifacts::Sensitivity sensitivity{
      .base_model = {},
      .candidate_bits = options_.candidate_bits,
      .group_size = options_.group_size,
      .key = key_,
      .form = options_.form,
      .layers = {}};
  if (options_.form == SensitivityForm::Exact) {
    sensitivity.layers = measure_sensitivity(
        setup_, make_matrix, calibration_, options_, *journal_, progress);
    return sensitivity;
  }
  const GroupJournal group{options_.group_size, journal_.get()};
  estimate_sensitivity(
      setup_,
      make_matrix,
      calibration_,
      fast_options(options_),
      {&group, 1},
      progress);
  sensitivity.layers =
      summarize_sensitivity(*setup_.model, calibration_, options_, *journal_);
  return sensitivity;
}

std::string Measurement::key_of(const std::string& model_digest) const {
  std::string form = options_.form == SensitivityForm::Exact
      ? "exact"
      : "fast, labels " + std::to_string(options_.seed);
  if (options_.rounding != Rounding::Nearest) { // which goes without saying
    form += std::string(", rounding ") + name_of(options_.rounding);
  }
  return sensitivity_key(
      model_digest,
      {.calibration_hash = calibration_.hash,
       .group_size = options_.group_size,
       .compute = setup_.compute,
       .arithmetic = setup_.model->device().arithmetic(),
       .form = std::move(form)});
}

bool Measurement::is_complete() const {
  const auto n = static_cast<int>(calibration_.chunks.size());
  return std::all_of(
      options_.modules.begin(), options_.modules.end(), [&](const auto& name) {
        return std::all_of(
            options_.candidate_bits.begin(),
            options_.candidate_bits.end(),
            [&](int bits) { return journal_->has(name, bits, 0, n); });
      });
}

} // namespace optiq::quant
