#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/base/progress.h"
#include "optiq/eval/kl.h"
#include "optiq/models/setup.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/rounder.h"

namespace optiq::quant {

/** Makes one changed model, or the same with other caches, which is let go once
 * it is measured. */
using SetupMaker = std::function<models::Setup()>;

struct Selection {
  std::size_t best = 0;
  std::vector<double> kl; // mean over tokens, per model
};

/**
 * The model with the least KL(reference || model) on the calibration text, as
 * the geometric mean over chunks; ties go to the earlier one. Throws Corrupt
 * when a KL is not a number. Reports stage "selection". One changed model at a
 * time is in memory, and the reference's final hidden states.
 */
Selection select_model(
    const models::Setup& reference,
    const Calibration& calibration,
    std::span<const SetupMaker> makers,
    const ProgressSink& progress);

/** Weights of the size prior (PlanOptions::prior_weight) that are tried. */
inline constexpr double kPriorWeights[] =
    {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0};

/** What a chunk of the calibration text is for while plans are compared. */
enum class ChunkPart {
  Screen, // tried first: most of what is no better shows there
  Confirm, // the rest of what moves go by
  Held, // moves only have to do no harm there
};

/** A quarter, a half and a quarter, spread evenly. */
ChunkPart part_of(std::size_t chunk);
/** Chunks of a part among `n_chunks`, ascending. */
std::vector<std::size_t> chunks_of(ChunkPart part, std::size_t n_chunks);

/** Mean over these chunks of log(kl / other), and its standard error: every
 * chunk counts the same, however fragile its text is. Chunks where either is 0
 * say nothing. */
struct PairedDifference {
  double mean = 0;
  double standard_error = 0; // infinite for fewer than two chunks
};
PairedDifference paired_difference(
    std::span<const double> kl,
    std::span<const double> other,
    std::span<const std::size_t> chunks);

/** A plan whose whole model was measured. */
struct MeasuredPlan {
  artifacts::Plan plan;
  std::vector<double> chunk_kl; // mean over tokens of each chunk, nats
};

/**
 * Measures KL(reference || plan's whole model), a part of the chunks at a time.
 * In memory are the reference's final hidden states and the matrices of the
 * plan last measured, of which only those are made anew whose widths the next
 * plan changes. Throws Corrupt when a KL is not a number.
 */
class PlanJudge {
 public:
  /** All arguments outlive it. Runs the reference. */
  PlanJudge(
      const models::Setup& reference,
      const MatrixMaker& make_matrix,
      const Calibration& calibration);

  std::size_t n_chunks() const;
  /** Of the part's chunks, in their order. */
  std::vector<double> measure(const artifacts::Plan& plan, ChunkPart part);
  /** Of all chunks. */
  std::vector<double> measure(const artifacts::Plan& plan);
  /** Mean over tokens. */
  double mean_kl(std::span<const double> chunk_kl) const;

 private:
  struct Part {
    std::vector<std::vector<std::int32_t>> rows;
    std::unique_ptr<eval::KlReference> reference; // null without rows
  };

  const models::Setup& reference_;
  const MatrixMaker& make_matrix_;
  const Calibration& calibration_;
  std::array<Part, 3> parts_;
  models::MatricesByName matrices_; // of the plan last measured
};

/** The plan of the least KL, as select_model takes it, with its mean KL over
 * tokens as measured_kl. Plans of equal widths are measured once. Reports stage
 * "selection". */
MeasuredPlan select_plan(
    PlanJudge& judge,
    std::vector<artifacts::Plan> plans,
    const ProgressSink& progress);

} // namespace optiq::quant
