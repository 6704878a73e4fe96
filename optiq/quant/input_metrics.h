#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <mlx/array.h>

#include "optiq/base/progress.h"
#include "optiq/base/scratch_file.h"
#include "optiq/kernels/error_metric.h"
#include "optiq/models/setup.h"
#include "optiq/quant/calibration.h"

namespace optiq::quant {

struct InputMetricOptions {
  bool has_factors = true; // else the inputs count each by itself
};

/**
 * For every matrix, what an error of its weights costs in what it puts out on
 * the calibration text, as the full-precision model runs on it. A layer at a
 * time: its inputs' second moments are in memory, what is made of them goes to
 * a file without a name until it is asked for.
 *
 * A matrix that is embeddings and head at once also looks rows up, where its
 * inputs count all the same: its moments are halfway to that.
 *
 * What few tokens say about many inputs is not all true, so factors are damped:
 * by the share of the mean second moment with which the factor of the training
 * chunks does best on those held out (is_held_out, kernels::cost_of_rounding);
 * that of all chunks is then damped the same. Where none does better than no
 * feedback, or nothing is held out, there is none.
 */
class InputMetrics {
 public:
  /** Runs the model over the calibration text; reports stage "moments" in
   * layers. Throws as a forward and ScratchFile. */
  InputMetrics(
      const models::Setup& setup,
      const Calibration& calibration,
      const InputMetricOptions& options,
      const ProgressSink& progress);

  /** By the module's name; of one that nothing was seen of (MTP heads,
   * embeddings that are no head) the plain one. */
  kernels::ErrorMetric of(const std::string& module, std::size_t n_inputs)
      const;

 private:
  class Collection;
  struct Entry {
    std::uint64_t offset = 0; // importance, then the factor
    std::size_t n_inputs = 0;
    bool has_factor = false;
  };

  ScratchFile file_;
  std::map<std::string, Entry> entries_; // by module; several may share one
};

/** Bytes that collecting takes beside the weights, and `of` beside its result.
 */
std::uint64_t input_metrics_bytes(
    const models::Model& model,
    const Calibration& calibration);

} // namespace optiq::quant
