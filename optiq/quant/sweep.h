#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <vector>

#include "optiq/artifacts/sweep.h"
#include "optiq/base/progress.h"
#include "optiq/quant/convert.h"

/** Quality by bytes, of one source's models. */
namespace optiq::quant {

/** Sizes to convert to, as `file bits per weight`. */
struct SweepRange {
  double low = 3;
  double high = 8;
  double step = 0.25;
};

struct SweepOptions {
  /** Source, candidates, calibration and rounding; method, target and output
   * are the sweep's. */
  ConvertOptions convert;
  SweepRange range;
  /** Model directories or files to measure beside. */
  std::vector<std::filesystem::path> also;
  /** Files of eval::load_dataset, at least one. */
  std::vector<std::filesystem::path> data;
  std::size_t limit = 0; // rows or chunks of each, 0 = all
};

/** Throws InvalidInput for steps that are not above 0, more than 1000 sizes, or
 * bits per weight that no plan has. */
std::vector<double> sizes_of(const SweepRange& range);

/**
 * Converts the source to every size by methods optiq and static, and uniformly
 * at every width whose size lies in the range, and measures each as it is
 * written: KL to the source and perplexity, in exact arithmetic, and, where a
 * data set's rows have numbers as answers, their share of right ones, as `eval`
 * does. Models lie in `workspace`, an existing folder, one at a time, and are
 * removed again. Sensitivity is measured for the first size and served from its
 * cache to the others. Sizes that a method cannot have are left out, with a
 * notice. Reports stage "sweep", in models, beside those of convert and eval.
 */
artifacts::Sweep run_sweep(
    const SweepOptions& options,
    const std::filesystem::path& workspace,
    const ProgressSink& progress);

} // namespace optiq::quant
