#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/models/model.h"

namespace optiq::train {

/** What a module's rank follows. */
enum class RankScaling {
  /** rank * bits / 4, rounded up: 8 bits get twice what 4 do. A dense module
   * has the rank itself. */
  ByBits,
  /** rank * KL at the module's width / the median, within [0.5, 2], rounded up.
   * What convert protects is not measured and has the rank itself. */
  ByKl,
  Constant,
};

/** "by_bits", "by_kl", "constant"; throws InvalidInput for another name. */
RankScaling rank_scaling_of(const std::string& name);

struct RankOptions {
  int rank = 8;
  RankScaling scaling = RankScaling::ByBits;
  /** As many parameters in all as with the constant rank, or fewer by less than
   * one rank of the smallest module. */
  bool matches_budget = false;
  float alpha = 16.f; // a module's scale is alpha / its rank
  std::optional<float> scale; // the same for all instead
  /** alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732). */
  bool is_rank_stabilized = false;
  /** Last names or parts of modules, as "q_proj" or "mlp.up_proj"; empty: all
   * linears of the layers. */
  std::vector<std::string> target_modules;
  int n_layers = 0; // the last ones; 0: all
};

/** What an adapter will have at a module. */
struct ModuleRank {
  std::string module;
  int in = 0;
  int out = 0;
  int rank = 0;
  float scale = 1.f;

  std::uint64_t parameters() const {
    return std::uint64_t{1} * rank * (in + out);
  }
};

/**
 * In the model's order of modules. Throws InvalidInput for a rank below 1, a
 * target that no module has, by_kl without sensitivity, for modules that all
 * lack one, or for one that was measured at other widths.
 */
std::vector<ModuleRank> plan_ranks(
    const models::Model& model,
    const std::optional<artifacts::Sensitivity>& sensitivity,
    const RankOptions& options);

} // namespace optiq::train
