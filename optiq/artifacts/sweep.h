#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "optiq/artifacts/eval_result.h"
#include "optiq/artifacts/json.h"

namespace optiq::artifacts {

/** One model of a sweep. */
struct SweepPoint {
  std::string series; // "optiq", "static", "uniform", a directory's name
  std::string label; // within the series: "4.25", "4 bits, groups of 64"
  std::uint64_t bytes = 0; // of model*.safetensors
  double file_bpw = 0; // 8 x bytes / parameters
  std::vector<EvalResult>
      results; // each data set's, in the order of Sweep::data
};

/** Models of one source by size (format: docs/formats.md). */
struct Sweep {
  std::string base_model;
  std::uint64_t base_bytes = 0; // of the source's weights
  std::vector<std::string> data; // names of what was measured on
  std::vector<SweepPoint> points; // series by series
  std::vector<std::string> notices; // what was left out, and what else to know
};

Json to_json(const Sweep& sweep);

} // namespace optiq::artifacts
