#include "optiq/artifacts/sweep.h"

#include <utility>

namespace optiq::artifacts {

Json to_json(const Sweep& sweep) {
  Json points = Json::array();
  for (const SweepPoint& point : sweep.points) {
    Json results = Json::array();
    for (const EvalResult& result : point.results) {
      results.push_back(to_json(result));
    }
    points.push_back(
        {{"series", point.series},
         {"label", point.label},
         {"bytes", point.bytes},
         {"file_bpw", point.file_bpw},
         {"results", std::move(results)}});
  }
  return {
      {"schema_version", 1},
      {"base_model", sweep.base_model},
      {"base_bytes", sweep.base_bytes},
      {"data", sweep.data},
      {"points", std::move(points)},
      {"notices", sweep.notices}};
}

} // namespace optiq::artifacts
