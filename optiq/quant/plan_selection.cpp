#include "optiq/quant/plan_selection.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/eval/kl.h"

namespace optiq::quant {
namespace {

bool has_equal_widths(const artifacts::Plan& a, const artifacts::Plan& b) {
  return std::equal(
      a.layers.begin(),
      a.layers.end(),
      b.layers.begin(),
      b.layers.end(),
      [](const auto& x, const auto& y) {
        return x.bits == y.bits && x.group_size == y.group_size;
      });
}

void keep_first_of_equals(std::vector<artifacts::Plan>& plans) {
  std::vector<artifacts::Plan> kept;
  for (artifacts::Plan& plan : plans) {
    if (std::none_of(kept.begin(), kept.end(), [&](const auto& other) {
          return has_equal_widths(plan, other);
        })) {
      kept.push_back(std::move(plan));
    }
  }
  plans = std::move(kept);
}

// Brings the matrices to a plan's widths; those that have theirs stay.
void bring_to_widths(
    const MatrixMaker& make_matrix,
    std::span<const artifacts::LayerBits> layers,
    models::MatricesByName& matrices) {
  for (const artifacts::LayerBits& layer : layers) {
    const auto found = matrices.find(layer.name);
    if (found == matrices.end() || found->second.bits() != layer.bits ||
        found->second.group_size() != layer.group_size) {
      matrices.insert_or_assign(
          layer.name, make_matrix(layer.name, layer.bits, layer.group_size));
    }
  }
}

// Mean over chunks of log(KL / KL of the other plan): every chunk counts the
// same, however fragile its text is.
double mean_log_ratio(
    const std::vector<double>& kl,
    const std::vector<double>& other) {
  double sum = 0;
  std::size_t n = 0;
  for (std::size_t i = 0; i < kl.size(); ++i) {
    if (kl[i] > 0 && other[i] > 0) {
      sum += std::log(kl[i] / other[i]);
      ++n;
    }
  }
  return n == 0 ? 0 : sum / static_cast<double>(n);
}

} // namespace

Selection select_model(
    const models::Setup& reference,
    const Calibration& calibration,
    std::span<const SetupMaker> makers,
    const ProgressSink& progress) {
  std::uint64_t done = 0;
  const auto report = [&](const std::string& detail) {
    if (progress) {
      progress({"selection", done, makers.size(), detail});
    }
  };
  const eval::KlReference judge(reference, calibration.chunks, {}, true);
  Selection selection;
  std::vector<std::vector<double>> chunk_kl;
  for (const SetupMaker& make : makers) {
    report("whole model");
    const artifacts::KlScores scores = judge.compare(make());
    if (!std::isfinite(scores.mean_kl)) {
      fail(
          ErrorKind::Corrupt,
          "[select_model] the KL of the quantized model is {}, expected a "
          "number. Does the model hold NaN or infinite weights?",
          scores.mean_kl);
    }
    selection.kl.push_back(scores.mean_kl);
    chunk_kl.push_back(scores.row_kl);
    ++done;
  }
  report("");
  for (std::size_t i = 1; i < chunk_kl.size(); ++i) {
    if (mean_log_ratio(chunk_kl[i], chunk_kl[selection.best]) < 0) {
      selection.best = i;
    }
  }
  return selection;
}

artifacts::Plan select_plan(
    const models::Setup& reference,
    const MatrixMaker& make_matrix,
    const Calibration& calibration,
    std::vector<artifacts::Plan> plans,
    const ProgressSink& progress) {
  keep_first_of_equals(plans);
  models::MatricesByName matrices; // of the plan last measured
  std::vector<SetupMaker> makers;
  for (const artifacts::Plan& plan : plans) {
    makers.emplace_back([&] {
      bring_to_widths(make_matrix, plan.layers, matrices);
      return reference.with_model(reference.model->with_matrices(matrices));
    });
  }
  const Selection selection =
      select_model(reference, calibration, makers, progress);
  artifacts::Plan best = std::move(plans[selection.best]);
  best.measured_kl = selection.kl[selection.best];
  return best;
}

} // namespace optiq::quant
