#include "optiq/train/rank_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "optiq/base/error.h"

namespace optiq::train {
namespace {

constexpr const char* kFunction = "plan_ranks";
constexpr int kLeastRank = 2; // of a scaled one
constexpr double kLeastFactor = 0.5;
constexpr double kMostFactor = 2.0;

/** "up_proj" of "mlp.up_proj". */
std::string last_name(const std::string& part) {
  return part.substr(part.find_last_of('.') + 1);
}

/** The linears that get an adapter. */
std::vector<models::Module> chosen_modules(
    const models::Model& model,
    const RankOptions& options) {
  const int n_layers = model.info().n_layers;
  const int first_layer =
      options.n_layers == 0 ? 0 : std::max(0, n_layers - options.n_layers);
  std::set<std::string> unused(
      options.target_modules.begin(), options.target_modules.end());
  std::vector<models::Module> chosen;
  for (const models::Module& module : model.modules()) {
    if (module.id.layer < 0) {
      continue; // embeddings and heads: full matrices of the vocabulary
    }
    bool is_target = options.target_modules.empty();
    for (const std::string& target : options.target_modules) {
      if (target == module.id.part || target == last_name(module.id.part)) {
        unused.erase(target);
        is_target = true;
      }
    }
    if (is_target && module.id.layer >= first_layer) {
      chosen.push_back(module);
    }
  }
  if (!unused.empty() || chosen.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] target module '{}': found in no layer of a {}, expected a name "
        "like that of one of its linears (q_proj, mlp.up_proj).",
        kFunction,
        unused.empty() ? "" : *unused.begin(),
        model.info().model_type);
  }
  return chosen;
}

/** KL of every module at its own width; nothing for quantized ones that were
 * not measured, since convert protects them. */
std::vector<std::optional<double>> kl_of(
    const std::vector<models::Module>& modules,
    const std::optional<artifacts::Sensitivity>& sensitivity) {
  if (!sensitivity) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] by_kl: found no optiq/sensitivity.json beside the model, expected "
        "what `optiq convert` leaves there. Choose by_bits or constant, or "
        "convert the model with measuring.",
        kFunction);
  }
  std::map<std::string, const artifacts::LayerSensitivity*> by_name;
  for (const artifacts::LayerSensitivity& layer : sensitivity->layers) {
    by_name.emplace(layer.name, &layer);
  }
  std::vector<std::optional<double>> all;
  for (const models::Module& module : modules) {
    const auto found = by_name.find(module.name);
    const int bits = module.matrix.bits();
    if (found == by_name.end() && module.matrix.is_quantized()) {
      all.emplace_back();
      continue;
    }
    if (found == by_name.end() || !found->second->kl.contains(bits)) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] by_kl: {} has {} bits, and optiq/sensitivity.json has no KL of "
          "it at this width. Choose by_bits or constant.",
          kFunction,
          module.name,
          bits);
    }
    all.emplace_back(found->second->kl.at(bits));
  }
  return all;
}

/** KL / the median, within bounds; 1 for what was not measured. */
std::vector<double> factors_of_kl(
    const std::vector<std::optional<double>>& kl) {
  std::vector<double> sorted;
  for (const std::optional<double>& value : kl) {
    if (value) {
      sorted.push_back(*value);
    }
  }
  if (sorted.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] by_kl: found none of the modules in optiq/sensitivity.json, "
        "expected what convert measured. Choose by_bits or constant.",
        kFunction);
  }
  std::sort(sorted.begin(), sorted.end());
  const double median = sorted[sorted.size() / 2];
  std::vector<double> factors(kl.size(), 1.0);
  for (std::size_t i = 0; i < kl.size(); ++i) {
    if (kl[i] && median > 0) {
      factors[i] = std::clamp(*kl[i] / median, kLeastFactor, kMostFactor);
    }
  }
  return factors;
}

/** By what each module's rank is the base rank's. */
std::vector<double> factors_of(
    const std::vector<models::Module>& modules,
    const std::optional<artifacts::Sensitivity>& sensitivity,
    RankScaling scaling) {
  std::vector<double> factors(modules.size(), 1.0);
  if (scaling == RankScaling::ByBits) {
    for (std::size_t i = 0; i < modules.size(); ++i) {
      if (modules[i].matrix.is_quantized()) {
        factors[i] = modules[i].matrix.bits() / 4.0;
      }
    }
  } else if (scaling == RankScaling::ByKl) {
    return factors_of_kl(kl_of(modules, sensitivity));
  }
  return factors;
}

/** A rank more costs this many parameters. */
std::uint64_t cost_of(const ModuleRank& module) {
  return std::uint64_t{1} * module.in + module.out;
}

/**
 * Ranks in the proportion of `wanted` whose parameters fill `budget`: rounded
 * down at the largest common factor that fits, then one more each where most
 * was cut off, as long as it fits. Every module keeps a rank of 1.
 */
void fill_budget(
    std::vector<ModuleRank>& modules,
    const std::vector<double>& wanted,
    std::uint64_t budget) {
  const auto ranks_at = [&](double factor) {
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < modules.size(); ++i) {
      modules[i].rank = std::max(1, static_cast<int>(wanted[i] * factor));
      total += modules[i].parameters();
    }
    return total;
  };
  double low = 0;
  double high = 4; // wanted is at least half of the constant rank
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (ranks_at(middle) <= budget ? low : high) = middle;
  }
  std::uint64_t total = ranks_at(low);
  std::vector<std::size_t> order(modules.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = i;
  }
  const auto cut_off = [&](std::size_t i) {
    return wanted[i] * low - modules[i].rank;
  };
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return cut_off(a) > cut_off(b);
  });
  bool has_grown = true;
  while (has_grown) {
    has_grown = false;
    for (const std::size_t i : order) {
      if (total + cost_of(modules[i]) <= budget) {
        ++modules[i].rank;
        total += cost_of(modules[i]);
        has_grown = true;
      }
    }
  }
}

float scale_of(int rank, const RankOptions& options) {
  const auto r = static_cast<float>(rank);
  return options.scale
      ? *options.scale
      : options.alpha / (options.is_rank_stabilized ? std::sqrt(r) : r);
}

} // namespace

RankScaling rank_scaling_of(const std::string& name) {
  if (name == "by_bits") {
    return RankScaling::ByBits;
  }
  if (name == "by_kl") {
    return RankScaling::ByKl;
  }
  if (name == "constant") {
    return RankScaling::Constant;
  }
  fail(
      ErrorKind::InvalidInput,
      "[rank_scaling_of] found '{}', expected by_bits, by_kl or constant.",
      name);
}

std::vector<ModuleRank> plan_ranks(
    const models::Model& model,
    const std::optional<artifacts::Sensitivity>& sensitivity,
    const RankOptions& options) {
  if (options.rank < 1) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] rank: found {}, expected 1 or more.",
        kFunction,
        options.rank);
  }
  const std::vector<models::Module> modules = chosen_modules(model, options);
  std::vector<double> wanted =
      factors_of(modules, sensitivity, options.scaling);
  std::vector<ModuleRank> plan;
  std::uint64_t budget = 0;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const kernels::Matrix& matrix = modules[i].matrix;
    const bool is_scaled = wanted[i] != 1.0;
    wanted[i] *= options.rank;
    plan.push_back(
        {.module = modules[i].name,
         .in = matrix.in_features(),
         .out = matrix.out_features(),
         .rank = std::max(
             is_scaled ? kLeastRank : 1,
             static_cast<int>(std::ceil(wanted[i])))});
    budget += cost_of(plan.back()) * options.rank;
  }
  if (options.matches_budget) {
    fill_budget(plan, wanted, budget);
  }
  for (ModuleRank& module : plan) {
    module.scale = scale_of(module.rank, options);
  }
  return plan;
}

} // namespace optiq::train
