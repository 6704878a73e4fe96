#include "optiq/quant/model_calibration.h"

#include <utility>
#include <vector>

#include "optiq/generate/engine.h"

namespace optiq::quant {
namespace {

Calibration counted(const CalibrationOptions& options) {
  Calibration calibration;
  calibration.chunks.assign(
      static_cast<std::size_t>(options.n_chunks),
      std::vector<std::int32_t>(
          static_cast<std::size_t>(options.chunk_tokens), 0));
  return calibration;
}

} // namespace

Calibration calibrate_model(
    const CalibrationOptions& options,
    const io::ModelDirectory& source,
    bool only_counts,
    const std::function<const models::Setup&()>& setup,
    const ProgressSink& progress) {
  const auto sample = [&](const CalibrationOptions& wanted) {
    if (only_counts) {
      return counted(wanted);
    }
    generate::Engine engine(setup(), {});
    return sample_calibration(
        wanted, make_calibration_encoder(source), engine, progress);
  };
  if (options.source == "self") {
    return sample(options);
  }
  if (options.source != "both") {
    return load_calibration(options, make_calibration_encoder(source));
  }
  CalibrationOptions mix = options;
  mix.source = "mix";
  mix.n_chunks /= 2;
  CalibrationOptions self = options;
  self.n_chunks -= mix.n_chunks;
  return mix.n_chunks == 0
      ? sample(self)
      : join_calibrations(
            sample(self),
            load_calibration(mix, make_calibration_encoder(source)));
}

} // namespace optiq::quant
