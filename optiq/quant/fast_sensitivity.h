#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "optiq/base/progress.h"
#include "optiq/models/setup.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/rounder.h"
#include "optiq/quant/sensitivity_journal.h"

/**
 * An estimate of what sensitivity.h measures, of all matrices, widths and group
 * sizes from one forward and one backward of every chunk.
 *
 *   KL(reference || W + dW) = 1/2 E_t[dW' F dW] + O(dW^3),
 *   F = E_y[g g'], y ~ p_t, g = d -log p_t(y) / dW
 *
 * One label is drawn from the model's own distribution at every position; their
 * scores are independent, so the square of the gradient G of the chunk's sum
 * has the expectation of F summed over positions. Errors of rounding are
 * independent of each other with mean 0, so that only F's diagonal counts:
 *
 *   KL ~ 1/(2 T) sum over rows and groups of (sum G^2) mean(dW^2)
 *
 * dW being the real rounding. Third-order terms are missing: at 2 bits a
 * matrix may cost several times what this says.
 */
namespace optiq::quant {

struct FastOptions {
  std::vector<std::string> modules; // to estimate; names of model.modules()
  std::vector<int> candidate_bits;
  std::uint64_t seed = 0; // of the labels
  ChunkRange chunks; // to estimate
  /** Arrays of a chunk that are kept for the way back; of more, only the
   * layers' inputs are, and each layer runs again. */
  std::size_t max_kept_bytes = std::size_t{64} << 20;
};

/** Where the estimates at a group size are kept. */
struct GroupJournal {
  int group_size = 0;
  SensitivityJournal* journal = nullptr;
};

/** Brings every module's estimate of every chunk at every width and group size
 * that its rows divide by into the journals; makes what they lack. Reports
 * (stage "sensitivity") in rows times layers. Throws Corrupt when an estimate
 * is not a number, Unsupported for a model that is not differentiated. */
void estimate_sensitivity(
    const models::Setup& setup,
    const MatrixMaker& make_matrix,
    const Calibration& calibration,
    const FastOptions& options,
    std::span<const GroupJournal> journals,
    const ProgressSink& progress);

/** Layer evaluations, as probe_work counts them, that take as long as that with
 * empty journals. */
std::uint64_t fast_sensitivity_work(
    const models::Model& model,
    const Calibration& calibration);

/** Bytes that it needs beside the weights, of `n_widths` and group sizes. */
std::uint64_t fast_sensitivity_bytes(
    const models::Model& model,
    const Calibration& calibration,
    const FastOptions& options,
    std::span<const int> group_sizes);

} // namespace optiq::quant
