#pragma once

#include <functional>

#include "optiq/base/progress.h"
#include "optiq/io/model_directory.h"
#include "optiq/models/setup.h"
#include "optiq/quant/calibration.h"

namespace optiq::quant {

/**
 * The text of the options for a model, "both" being half of "self" and half of
 * "mix". `setup` is asked for where the model writes text itself; not where
 * `only_counts`: then that text is as many ids that mean nothing. Throws as
 * load_calibration and sample_calibration do.
 */
Calibration calibrate_model(
    const CalibrationOptions& options,
    const io::ModelDirectory& source,
    bool only_counts,
    const std::function<const models::Setup&()>& setup,
    const ProgressSink& progress);

} // namespace optiq::quant
