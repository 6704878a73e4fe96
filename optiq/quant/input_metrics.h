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
  /** Of the mean second moment, added to each: what some tokens of another text
   * say about many inputs is not all true. The literature's 0.01 is worse than
   * no feedback at all where tokens are few (docs/quality.md). */
  double damping = 0.1;
};

/**
 * For every matrix, what an error of its weights costs in what it puts out on
 * the calibration text, as the full-precision model runs on it. A layer at a
 * time: its inputs' second moments are in memory, what is made of them goes to
 * a file without a name until it is asked for.
 *
 * A matrix that is embeddings and head at once also looks rows up, where its
 * inputs count all the same: its moments are halfway to that.
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
  };

  bool has_factors_;
  ScratchFile file_;
  std::map<std::string, Entry> entries_; // by module; several may share one
};

/** Bytes that collecting takes beside the weights, and `of` beside its result.
 */
std::uint64_t input_metrics_bytes(
    const models::Model& model,
    const Calibration& calibration);

} // namespace optiq::quant
