#include "optiq/quant/kv_choice.h"

#include <fmt/format.h>

#include "optiq/base/error.h"
#include "optiq/base/output_file.h"
#include "optiq/base/staged_directory.h"
#include "optiq/kernels/devices.h"

namespace optiq::quant {
namespace {

namespace fs = std::filesystem;
using kernels::kKvBlockTokens;

constexpr const char* kConfigFile = "kv_config.json";
constexpr const char* kSensitivityFile = "kv_sensitivity.json";

StagedOptions staged_options(
    const KvCacheOptions& options,
    const fs::path& model) {
  return {
      .kind =
          {.name = "a result of optiq kv-cache",
           .files = {kConfigFile, kSensitivityFile},
           .required = {}},
      .replace = options.overwrite,
      .source = model,
      // Where optiq report looks for it.
      .place_in_source = model / "optiq" / "kv_cache"};
}

void write_files(const KvCacheResult& result, const fs::path& folder) {
  write_file_atomically(
      folder / kConfigFile,
      artifacts::dump_json(
          artifacts::to_json(artifacts::KvConfig{result.plan.layers}), 2));
  write_file_atomically(
      folder / kSensitivityFile,
      artifacts::dump_json(artifacts::to_json(result.sensitivity), 2));
}

Calibration make_calibration(
    const models::Setup& setup,
    const io::ModelDirectory& directory,
    const CalibrationOptions& options,
    const ProgressSink& progress) {
  const int longest = setup.model->info().max_positions;
  if (options.chunk_tokens < 2 || options.chunk_tokens > longest) {
    fail(
        ErrorKind::InvalidInput,
        "[kv-cache] --seq-len: found {}, expected 2 to {} tokens, which is "
        "the model's context.",
        options.chunk_tokens,
        longest);
  }
  const CalibrationEncoder encoder = make_calibration_encoder(directory);
  if (options.source != "self") {
    return load_calibration(options, encoder);
  }
  generate::Engine engine(setup, {});
  return sample_calibration(options, encoder, engine, progress);
}

void add_sizes(
    const std::vector<KvLayerOffers>& layers,
    KvCacheResult& result) {
  std::string kept;
  std::string reason;
  for (const KvLayerOffers& layer : layers) {
    const double dense =
        static_cast<double>(layer.dense_bytes) / kKvBlockTokens;
    if (layer.offers.empty()) {
      result.kept_bytes_per_token += dense;
      kept += (kept.empty() ? "" : ", ") + std::to_string(layer.layer_idx);
      reason = layer.refusals.begin()->second;
    } else {
      result.dense_bytes_per_token += dense;
      result.values_per_token +=
          std::uint64_t{2} * layer.n_kv_heads * layer.head_dim;
    }
  }
  result.plan_bytes_per_token =
      static_cast<double>(result.plan.block_bytes) / kKvBlockTokens;
  if (!kept.empty()) {
    result.notices.push_back(
        fmt::format("the caches of layers {} stay bf16: {}", kept, reason));
  }
}

} // namespace

KvCacheResult choose_kv_cache(
    const std::shared_ptr<const models::Model>& model,
    const io::ModelDirectory& directory,
    KvCacheOptions options,
    const ProgressSink& progress) {
  validate(options.search);
  const KvSearch& search = options.search;
  const models::Setup setup(model, kernels::Compute::Exact);
  const std::vector<KvLayerOffers> layers = kv_offers(*model, search);
  const std::uint64_t budget = kv_budget(layers, search, options.target);

  // Made before the long work, so that a folder that cannot be written is found
  // out now.
  StagedDirectory staged(
      options.output, staged_options(options, directory.path()));
  const Calibration calibration =
      make_calibration(setup, directory, options.calibration, progress);
  KvCacheResult result;
  result.notices = calibration.notices;
  result.calibration_hash = calibration.hash;
  ProbeOptions probing;
  fit_into_ram(probing);
  kernels::require_bytes(
      setup.model->device(),
      kv_sensitivity_bytes(setup, layers, calibration, search, probing),
      "measuring the K/V cache");
  const auto journal = open_sensitivity_journal(
      sensitivity_key(
          model_digest(directory),
          {.calibration_hash = calibration.hash,
           .group_size = search.codec.group_size,
           .compute = setup.compute,
           .arithmetic = setup.model->device().arithmetic()}),
      result.notices);
  const std::vector<KvMeasured> measured = measure_kv_sensitivity(
      setup, layers, calibration, search, probing, *journal, progress);
  result.plan = select_kv_plan(
      setup,
      calibration,
      make_kv_plans(layers, measured, search, budget),
      progress);
  for (const KvMeasured& m : measured) {
    result.sensitivity.push_back(m.layer);
  }
  add_sizes(layers, result);
  write_files(result, staged.path());
  staged.publish();
  return result;
}

} // namespace optiq::quant
