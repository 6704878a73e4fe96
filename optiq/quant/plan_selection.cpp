#include "optiq/quant/plan_selection.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/eval/kl.h"
#include "optiq/eval/statistics.h"

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

bool has_widths(
    const kernels::Matrix& matrix,
    const artifacts::LayerBits& layer) {
  return layer.bits == artifacts::kDenseBits
      ? !matrix.is_quantized()
      : matrix.is_quantized() && matrix.bits() == layer.bits &&
          matrix.group_size() == layer.group_size;
}

// Brings the matrices to a plan's widths; those that have theirs stay.
void bring_to_widths(
    const MatrixMaker& make_matrix,
    std::span<const artifacts::LayerBits> layers,
    models::MatricesByName& matrices) {
  for (const artifacts::LayerBits& layer : layers) {
    const auto found = matrices.find(layer.name);
    if (found == matrices.end() || !has_widths(found->second, layer)) {
      matrices.insert_or_assign(
          layer.name, make_matrix(layer.name, layer.bits, layer.group_size));
    }
  }
}

std::vector<std::size_t> all_chunks(std::size_t n) {
  std::vector<std::size_t> all(n);
  std::iota(all.begin(), all.end(), std::size_t{0});
  return all;
}

double mean_log_ratio(
    const std::vector<double>& kl,
    const std::vector<double>& other) {
  return paired_difference(kl, other, all_chunks(kl.size())).mean;
}

void require_number(double kl) {
  if (!std::isfinite(kl)) {
    fail(
        ErrorKind::Corrupt,
        "[select_model] the KL of the quantized model is {}, expected a "
        "number. Does the model hold NaN or infinite weights?",
        kl);
  }
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
    require_number(scores.mean_kl);
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

ChunkPart part_of(std::size_t chunk) {
  constexpr ChunkPart kTurn[] = {
      ChunkPart::Screen,
      ChunkPart::Confirm,
      ChunkPart::Held,
      ChunkPart::Confirm};
  return kTurn[chunk % std::size(kTurn)];
}

std::vector<std::size_t> chunks_of(ChunkPart part, std::size_t n_chunks) {
  std::vector<std::size_t> chunks = all_chunks(n_chunks);
  std::erase_if(chunks, [&](std::size_t i) { return part_of(i) != part; });
  return chunks;
}

PairedDifference paired_difference(
    std::span<const double> kl,
    std::span<const double> other,
    std::span<const std::size_t> chunks) {
  std::vector<double> logs;
  for (const std::size_t i : chunks) {
    if (kl[i] > 0 && other[i] > 0) {
      logs.push_back(std::log(kl[i] / other[i]));
    }
  }
  if (logs.size() < 2) {
    return {
        logs.empty() ? 0 : logs.front(),
        std::numeric_limits<double>::infinity()};
  }
  const eval::Estimate estimate = eval::mean(logs);
  return {estimate.value, estimate.standard_error};
}

PlanJudge::PlanJudge(
    const models::Setup& reference,
    const MatrixMaker& make_matrix,
    const Calibration& calibration)
    : reference_(reference),
      make_matrix_(make_matrix),
      calibration_(calibration) {
  for (std::size_t i = 0; i < n_chunks(); ++i) {
    parts_[static_cast<std::size_t>(part_of(i))].rows.push_back(
        calibration.chunks[i]);
  }
  for (Part& part : parts_) {
    if (!part.rows.empty()) {
      part.reference = std::make_unique<eval::KlReference>(
          reference, part.rows, eval::KlOptions{}, true);
    }
  }
}

std::size_t PlanJudge::n_chunks() const {
  return calibration_.chunks.size();
}

std::vector<double> PlanJudge::measure(
    const artifacts::Plan& plan,
    ChunkPart part) {
  const Part& rows = parts_[static_cast<std::size_t>(part)];
  if (rows.reference == nullptr) {
    return {};
  }
  bring_to_widths(make_matrix_, plan.layers, matrices_);
  const artifacts::KlScores scores = rows.reference->compare(
      reference_.with_model(reference_.model->with_matrices(matrices_)));
  require_number(scores.mean_kl);
  return scores.row_kl;
}

std::vector<double> PlanJudge::measure(const artifacts::Plan& plan) {
  std::vector<double> kl(n_chunks());
  for (const ChunkPart part :
       {ChunkPart::Screen, ChunkPart::Confirm, ChunkPart::Held}) {
    const std::vector<double> of_part = measure(plan, part);
    const std::vector<std::size_t> chunks = chunks_of(part, n_chunks());
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      kl[chunks[i]] = of_part[i];
    }
  }
  return kl;
}

double PlanJudge::mean_kl(std::span<const double> chunk_kl) const {
  double sum = 0;
  for (std::size_t i = 0; i < n_chunks(); ++i) {
    sum += chunk_kl[i] * static_cast<double>(calibration_.chunks[i].size());
  }
  return sum / static_cast<double>(calibration_.n_tokens());
}

MeasuredPlan select_plan(
    PlanJudge& judge,
    std::vector<artifacts::Plan> plans,
    const ProgressSink& progress) {
  keep_first_of_equals(plans);
  MeasuredPlan best;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    if (progress) {
      progress({"selection", i, plans.size(), "whole model"});
    }
    std::vector<double> kl = judge.measure(plans[i]);
    if (i == 0 || mean_log_ratio(kl, best.chunk_kl) < 0) {
      best = {std::move(plans[i]), std::move(kl)};
    }
  }
  if (progress) {
    progress({"selection", plans.size(), plans.size(), ""});
  }
  best.plan.measured_kl = judge.mean_kl(best.chunk_kl);
  return best;
}

} // namespace optiq::quant
