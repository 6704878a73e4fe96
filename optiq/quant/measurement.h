#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/base/progress.h"
#include "optiq/models/setup.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/fast_sensitivity.h"
#include "optiq/quant/rank_agreement.h"
#include "optiq/quant/rounder.h"
#include "optiq/quant/sensitivity.h"

namespace optiq::quant {

/** group_size and the larger ones are those offered. */
struct MeasurementOptions : SensitivityOptions {
  std::vector<int> other_group_sizes;
  artifacts::SensitivityForm form = artifacts::SensitivityForm::Auto;
  std::uint64_t seed = 0; // of the labels that an estimate draws
  /** Form auto, beside widths that are never left to an estimate: what
   * measuring may take, in forwards of the calibration text. Nothing: as many
   * as the estimate takes. */
  std::optional<std::uint64_t> budget_forwards;
  /** The same as seconds of this machine, of which a short trial makes whole
   * forwards; budget_forwards goes before. */
  std::optional<double> budget_seconds;
  Rounding rounding = Rounding::Nearest; // that the matrices are made with
};

/** The plans that sensitivities lead to, the one that trusts them most first;
 * what they disagree about is worth measuring. */
using PlanMaker = std::function<std::vector<artifacts::Plan>(
    std::span<const artifacts::LayerSensitivity>)>;

/**
 * How sensitivity comes about, in one of its forms. What is in the cache of
 * earlier measurements is taken from there and what is made goes there; neither
 * changes what comes out.
 *
 * Auto estimates everything; then it measures every width of 2 bits that a plan
 * chooses, until the plans choose no other, and, within the budget, what the
 * plans disagree about.
 */
class Measurement {
 public:
  /** References outlive it. */
  Measurement(
      const models::Setup& setup,
      const Calibration& calibration,
      MeasurementOptions options,
      PlanMaker make_plans);

  /** Bytes that it needs beside the weights. */
  std::uint64_t bytes() const;
  /** As probe_work, of what it takes with an empty cache, the whole budget
   * included. */
  std::uint64_t work() const;
  /** Form auto, in forwards of the calibration text; else 0. */
  std::uint64_t budget_forwards() const;
  /** After run or find: forwards of one chunk that the budget has left for
   * moves between whole plans, half of it at least. The same whatever the cache
   * has. */
  std::uint64_t chunks_left() const;

  /** Makes what is missing. The cache's place is in memory, with a notice,
   * where it may not be written. */
  artifacts::Sensitivity run(
      const std::string& model_digest,
      const MatrixMaker& make_matrix,
      const ProgressSink& progress,
      std::vector<std::string>& notices);
  /** Makes a share's chunks of what is estimated, or of form exact measured,
   * for a later run beside the same cache. Throws Denied or Io where it cannot
   * be kept. */
  void run_share(
      const Share& share,
      const std::string& model_digest,
      const MatrixMaker& make_matrix,
      const ProgressSink& progress);
  /** As run, from the cache alone; nothing where something is missing. */
  std::optional<artifacts::Sensitivity> find(const std::string& model_digest);

  /** After run or find, of what was both estimated and measured, 2 bits apart;
   * nothing where there are fewer than two. */
  std::optional<RankAgreement> agreement() const;

 private:
  /** What there is at a group size. */
  struct Group {
    SensitivityOptions options; // of the modules whose rows divide by it
    std::unique_ptr<SensitivityJournal> estimated;
    std::unique_ptr<SensitivityJournal> measured;
    SensitivityJournal settled; // estimates and the measured ones over them
  };
  struct Choice {
    // clang-tidy 14 reads the comparison with 0 in it.
    auto operator<=>(const Choice&) const =
        default; // NOLINT(modernize-use-nullptr)

    int group_size = 0;
    std::string module;
    int bits = 0;
  };
  /** What makes numbers; without it they are only looked up. */
  struct Maker {
    const MatrixMaker& make_matrix;
    const ProgressSink& progress;
  };

  bool is_estimated() const;
  std::string key_of(
      const std::string& model_digest,
      int group_size,
      bool is_estimated) const;
  /** False where something is missing and there is no maker. */
  bool make_all(const Maker* maker);
  bool measure_all(const Maker* maker);
  bool estimate(const Maker* maker);
  bool settle(const Maker* maker);
  bool measure(const std::vector<Choice>& choices, const Maker* maker);

  /** Layer evaluations of a forward of the calibration text. */
  std::uint64_t forward_work() const;
  std::vector<Choice> unsure_choices(
      const std::vector<artifacts::Plan>& plans) const;
  std::vector<Choice> disputed_choices(
      const std::vector<artifacts::Plan>& plans,
      std::uint64_t budget) const;
  void add_open_choice(
      const artifacts::LayerBits& layer,
      std::vector<Choice>& choices) const;
  std::uint64_t work_of(const std::vector<Choice>& choices) const;
  FastOptions fast_options() const;
  std::vector<artifacts::LayerSensitivity> summarize() const;
  artifacts::Sensitivity result(const std::string& model_digest) const;

  const models::Setup& setup_;
  const Calibration& calibration_;
  MeasurementOptions options_;
  PlanMaker make_plans_;
  std::vector<Group> groups_; // ascending by size
  std::set<Choice> settled_; // measured after they were estimated
  mutable std::optional<std::uint64_t> budget_; // forwards, once asked for
  std::uint64_t left_ = 0; // of the budget's layer evaluations
};

} // namespace optiq::quant
