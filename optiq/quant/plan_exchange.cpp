#include "optiq/quant/plan_exchange.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "optiq/artifacts/module_id.h"

namespace optiq::quant {
namespace {

using artifacts::LayerBits;
using artifacts::Plan;

// A bit is worth a factor of 4 in the error: at 2 about half of a kind's
// matrices change their width, a single one has to at once.
constexpr double kGroupFactor = 2;
constexpr double kMatrixFactor = 4;
constexpr double kMaxFactor = 16; // that is tried where nothing changes
constexpr double kConvincing = 2; // standard errors
constexpr int kDepths = 3;

/** Modules whose errors are multiplied together. */
struct ErrorGroup {
  std::vector<std::string> modules;
  double factor = 1;
  double kl = 0; // of the plan's widths, summed
};

void sort_by_kl(std::vector<ErrorGroup>& groups) {
  std::stable_sort(groups.begin(), groups.end(), [](auto& a, auto& b) {
    return a.kl > b.kl;
  });
}

/** What may matter most comes first: kinds of matrices and depths, then single
 * matrices, each by its part in the plan's KL. */
std::vector<ErrorGroup> error_groups(const Plan& plan) {
  int n_layers = 0;
  for (const LayerBits& layer : plan.layers) {
    n_layers = std::max(n_layers, artifacts::layer_of(layer.name) + 1);
  }
  std::map<std::string, ErrorGroup> shared; // by part and by depth
  std::vector<ErrorGroup> single;
  const auto add = [](ErrorGroup& group, const LayerBits& layer, double f) {
    group.modules.push_back(layer.name);
    group.factor = f;
    group.kl += layer.kl.value_or(0);
  };
  for (const LayerBits& layer : plan.layers) {
    if (layer.is_protected) {
      continue;
    }
    const artifacts::ModuleId id = artifacts::module_id(layer.name);
    add(shared["part " + id.part], layer, kGroupFactor);
    if (id.layer >= 0) {
      const int depth = id.layer * kDepths / n_layers;
      add(shared["depth " + std::to_string(depth)], layer, kGroupFactor);
    }
    add(single.emplace_back(), layer, kMatrixFactor);
  }
  std::vector<ErrorGroup> groups;
  groups.reserve(shared.size());
  for (auto& [name, group] : shared) {
    groups.push_back(std::move(group));
  }
  sort_by_kl(groups);
  sort_by_kl(single);
  groups.insert(groups.end(), single.begin(), single.end());
  return groups;
}

class Search {
 public:
  Search(
      MeasuredPlan start,
      const FactoredPlanMaker& make_plan,
      const PartMeasurer& measure,
      std::uint64_t max_chunks,
      const ProgressSink& progress)
      : make_plan_(make_plan),
        measure_(measure),
        max_chunks_(max_chunks),
        progress_(progress) {
    found_.best = std::move(start);
    seen_.insert(widths_of(found_.best.plan));
  }

  Exchange run() && {
    const std::vector<ErrorGroup> groups = error_groups(found_.best.plan);
    for (bool moved = true; moved && !is_exhausted_;) {
      moved = false;
      for (const ErrorGroup& group : groups) {
        for (const double factor : {group.factor, 1 / group.factor}) {
          // What was good may be good once more.
          while (!is_exhausted_ && move(group, factor)) {
            moved = true;
          }
        }
      }
    }
    report("");
    return std::move(found_);
  }

 private:
  using Widths = std::vector<std::pair<int, int>>; // bits and group size

  static Widths widths_of(const Plan& plan) {
    Widths widths;
    for (const LayerBits& layer : plan.layers) {
      widths.emplace_back(layer.bits, layer.group_size);
    }
    return widths;
  }

  /** Multiplies until the plan is another; true where that is the best now. */
  bool move(const ErrorGroup& group, double factor) {
    const Widths before = widths_of(found_.best.plan);
    ErrorFactors factors = factors_;
    MeasuredPlan candidate = found_.best;
    for (double all = factor; widths_of(candidate.plan) == before &&
         all <= kMaxFactor && all >= 1 / kMaxFactor;
         all *= factor) {
      for (const std::string& module : group.modules) {
        factors.try_emplace(module, 1.0).first->second *= factor;
      }
      candidate.plan = make_plan_(factors);
    }
    if (!seen_.insert(widths_of(candidate.plan)).second ||
        !is_better(candidate)) {
      return false;
    }
    found_.best = std::move(candidate);
    factors_ = std::move(factors);
    ++found_.n_kept;
    return true;
  }

  bool is_better(MeasuredPlan& candidate) {
    const std::size_t n = found_.best.chunk_kl.size();
    candidate.chunk_kl.assign(n, 0);
    std::vector<std::size_t> searched;
    if (!measure_part(candidate, ChunkPart::Screen, searched) ||
        difference(candidate, searched).mean >= 0 ||
        !measure_part(candidate, ChunkPart::Confirm, searched)) {
      return false;
    }
    const PairedDifference all = difference(candidate, searched);
    std::vector<std::size_t> held;
    // The negation also holds for what is not a number.
    return all.mean + kConvincing * all.standard_error < 0 &&
        measure_part(candidate, ChunkPart::Held, held) &&
        !(difference(candidate, held).mean > 0);
  }

  PairedDifference difference(
      const MeasuredPlan& candidate,
      const std::vector<std::size_t>& chunks) const {
    return paired_difference(candidate.chunk_kl, found_.best.chunk_kl, chunks);
  }

  /** False where the budget has no room for it. */
  bool measure_part(
      MeasuredPlan& candidate,
      ChunkPart part,
      std::vector<std::size_t>& measured) {
    const std::vector<std::size_t> chunks =
        chunks_of(part, candidate.chunk_kl.size());
    if (found_.n_chunks + chunks.size() > max_chunks_) {
      is_exhausted_ = true;
      return false;
    }
    report(std::to_string(found_.n_kept) + " kept");
    found_.n_tried += part == ChunkPart::Screen ? 1 : 0;
    found_.n_chunks += chunks.size();
    const std::vector<double> kl = measure_(candidate.plan, part);
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      candidate.chunk_kl[chunks[i]] = kl[i];
    }
    measured.insert(measured.end(), chunks.begin(), chunks.end());
    return true;
  }

  void report(const std::string& detail) const {
    if (progress_) {
      progress_({"exchange", found_.n_chunks, max_chunks_, detail});
    }
  }

  const FactoredPlanMaker& make_plan_;
  const PartMeasurer& measure_;
  std::uint64_t max_chunks_;
  const ProgressSink& progress_;
  Exchange found_;
  ErrorFactors factors_; // of the best plan
  std::set<Widths> seen_; // of plans that were measured
  bool is_exhausted_ = false;
};

} // namespace

Exchange exchange_widths(
    MeasuredPlan start,
    const FactoredPlanMaker& make_plan,
    const PartMeasurer& measure,
    std::uint64_t max_chunks,
    const ProgressSink& progress) {
  if (start.chunk_kl.size() < kMinExchangeChunks) {
    return {.best = std::move(start)};
  }
  return Search(std::move(start), make_plan, measure, max_chunks, progress)
      .run();
}

} // namespace optiq::quant
