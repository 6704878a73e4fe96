#pragma once

#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/eval_result.h"
#include "optiq/artifacts/kv_config.h"
#include "optiq/artifacts/metadata.h"
#include "optiq/artifacts/model_map.h"
#include "optiq/artifacts/training_log.h"

namespace optiq::report {

/** What optiq kv-cache wrote. */
struct KvChoice {
  artifacts::KvConfig config;
  std::vector<artifacts::KvLayerSensitivity> sensitivity; // may be empty
};

/** What optiq lora train made, or another maker's adapter, without a log. */
struct TrainedAdapter {
  std::string name;
  std::vector<artifacts::AdapterRank> ranks;
  std::vector<artifacts::TrainingStep> log; // may be empty
};

/** What is known of a model; only the map is always there. */
struct ReportInput {
  artifacts::ModelMap map;
  std::optional<artifacts::Metadata> metadata;
  std::optional<artifacts::Sensitivity> sensitivity;
  std::vector<artifacts::EvalResult> evals;
  std::optional<KvChoice> kv;
  std::optional<TrainedAdapter> adapter;
};

/** One HTML page that needs no other file and no script: header, bit map,
 * sensitivity plot, size breakdown, K/V cache, an adapter's ranks and training,
 * results. It is well-formed XML too. */
std::string render_report(const ReportInput& input);

} // namespace optiq::report
