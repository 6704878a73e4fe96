#include "optiq/quant/sensitivity.h"

#include <algorithm>
#include <map>
#include <span>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/kernels/quantize.h"

namespace optiq::quant {
namespace {

// Where the influence of a module begins.
Probe probe_of(const models::Module& module, const models::Model& model) {
  Probe probe{.name = module.name, .variants = {}};
  if (module.id.layer >= 0) {
    probe.first_layer = model.rerun_from(module.id.layer);
  } else if (module.id.role == artifacts::ModuleRole::Head) {
    probe.first_layer = model.info().n_layers;
  } else {
    probe.changes_embedding = true;
  }
  return probe;
}

std::uint64_t parameters_of(const models::Module& module) {
  return std::uint64_t{1} * module.matrix.out_features() *
      module.matrix.in_features();
}

std::vector<Probe> make_probes(
    const models::Setup& setup,
    const MatrixMaker& make_matrix,
    int group_size,
    std::span<const std::pair<std::string, std::vector<int>>> widths) {
  std::map<std::string, models::Module> all;
  for (models::Module& module : setup.model->modules()) {
    all.emplace(module.name, module);
  }
  std::vector<Probe> probes;
  for (const auto& [name, all_bits] : widths) {
    const auto found = all.find(name);
    if (found == all.end()) {
      fail(
          ErrorKind::Internal,
          "[measure_sensitivity] {}: not a module of the loaded model",
          name);
    }
    Probe probe = probe_of(found->second, *setup.model);
    for (const int bits : all_bits) {
      probe.variants.push_back(
          {.bits = bits,
           .bytes = parameters_of(found->second) * bits / 8,
           .make = [&setup, &make_matrix, name = name, bits, group_size] {
             return setup.with_model(setup.model->with_matrices(
                 {{name, make_matrix(name, bits, group_size)}}));
           }});
    }
    probes.push_back(std::move(probe));
  }
  return probes;
}

// Every module at every candidate.
std::vector<Probe> make_probes(
    const models::Setup& setup,
    const MatrixMaker& make_matrix,
    const SensitivityOptions& options) {
  std::vector<std::pair<std::string, std::vector<int>>> widths;
  for (const std::string& name : options.modules) {
    widths.emplace_back(name, options.candidate_bits);
  }
  return make_probes(setup, make_matrix, options.group_size, widths);
}

// Mean KL of each chunk over the modules at one width, which says how fragile
// the chunk's text is.
std::vector<double> chunk_scales(
    const Calibration& calibration,
    const SensitivityJournal& journal,
    std::span<const std::string> modules,
    int bits) {
  std::vector<double> scales(calibration.chunks.size(), 0.0);
  for (const std::string& module : modules) {
    for (std::size_t c = 0; c < scales.size(); ++c) {
      scales[c] += journal.at(module, bits, static_cast<int>(c)) /
          static_cast<double>(modules.size());
    }
  }
  return scales;
}

} // namespace

std::vector<artifacts::LayerSensitivity> measure_sensitivity(
    const models::Setup& setup,
    const MatrixMaker& make_matrix,
    const Calibration& calibration,
    const SensitivityOptions& options,
    SensitivityJournal& journal,
    const ProgressSink& progress) {
  measure_all_widths(
      setup, make_matrix, calibration, options, journal, progress);
  return summarize_sensitivity(*setup.model, calibration, options, journal);
}

void measure_all_widths(
    const models::Setup& setup,
    const MatrixMaker& make_matrix,
    const Calibration& calibration,
    const SensitivityOptions& options,
    SensitivityJournal& journal,
    const ProgressSink& progress) {
  const std::vector<Probe> probes = make_probes(setup, make_matrix, options);
  measure_probes(setup, probes, calibration, options, journal, progress);
}

void measure_widths(
    const models::Setup& setup,
    const MatrixMaker& make_matrix,
    const Calibration& calibration,
    const SensitivityOptions& options,
    const WidthsByModule& widths,
    SensitivityJournal& journal,
    const ProgressSink& progress) {
  const std::vector<std::pair<std::string, std::vector<int>>> all(
      widths.begin(), widths.end());
  measure_probes(
      setup,
      make_probes(setup, make_matrix, options.group_size, all),
      calibration,
      options,
      journal,
      progress);
}

std::uint64_t widths_work(
    const models::Setup& setup,
    const Calibration& calibration,
    const WidthsByModule& widths) {
  const std::vector<std::pair<std::string, std::vector<int>>> all(
      widths.begin(), widths.end());
  const std::uint64_t reference = calibration.n_tokens() *
      static_cast<std::uint64_t>(setup.model->info().n_layers + 1);
  return reference +
      probe_work(*setup.model, make_probes(setup, {}, 0, all), calibration);
}

std::vector<artifacts::LayerSensitivity> summarize_sensitivity(
    const models::Model& model,
    const Calibration& calibration,
    const SensitivityOptions& options,
    const SensitivityJournal& journal) {
  const std::vector<double> scales = chunk_scales(
      calibration,
      journal,
      options.modules,
      *std::min_element(
          options.candidate_bits.begin(), options.candidate_bits.end()));
  std::map<std::string, std::uint64_t> parameters;
  for (const models::Module& module : model.modules()) {
    parameters[module.name] = parameters_of(module);
  }
  std::vector<artifacts::LayerSensitivity> result;
  for (const std::string& module : options.modules) {
    artifacts::LayerSensitivity layer;
    layer.name = module;
    layer.group_size = options.group_size;
    layer.parameters = parameters.at(module);
    for (const int bits : options.candidate_bits) {
      const ChunkMean mean =
          mean_over_chunks(calibration, journal, module, bits);
      layer.kl[bits] = mean.kl;
      if (calibration.chunks.size() > 1) {
        layer.kl_stderr[bits] = mean.standard_error;
      }
      layer.relative_kl[bits] = mean_relative_kl(journal, module, bits, scales);
    }
    result.push_back(std::move(layer));
  }
  return result;
}

std::uint64_t sensitivity_work(
    const models::Setup& setup,
    const Calibration& calibration,
    const SensitivityOptions& options) {
  return probe_work(*setup.model, make_probes(setup, {}, options), calibration);
}

std::uint64_t sensitivity_bytes(
    const models::Setup& setup,
    const Calibration& calibration,
    const SensitivityOptions& options) {
  return probe_bytes(
      *setup.model, make_probes(setup, {}, options), calibration, options);
}

} // namespace optiq::quant
