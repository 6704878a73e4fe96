#include "optiq/quant/width_choice.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "optiq/artifacts/affine_format.h"
#include "optiq/artifacts/module_id.h"
#include "optiq/base/error.h"
#include "optiq/quant/allocation.h"
#include "optiq/quant/inventory.h"
#include "optiq/quant/planned_tensors.h"
#include "optiq/quant/static_rules.h"

namespace optiq::quant {
namespace {

using artifacts::LayerBits;
using artifacts::LayerSensitivity;
using artifacts::PlanMethod;

/** The free layers as a knapsack. Cost: code bits, or bytes in the file. */
struct Knapsack {
  std::vector<AllocationItem> items;
  std::vector<std::vector<std::size_t>> layers; // of each item
};

enum class Cost { CodeBits, Bytes };

std::uint64_t option_cost(
    const models::Checkpoint& checkpoint,
    const LayerBits& layer,
    int bits,
    int group_size,
    Cost cost) {
  return cost == Cost::CodeBits
      ? layer.parameters * static_cast<std::uint64_t>(bits)
      : quantized_bytes(weight_of(checkpoint, layer.name), bits, group_size);
}

// Squares of errors go with the square of a group's range, that of n normal
// values with the logarithm of n.
double group_prior(int group_size) {
  return std::log(group_size) / std::log(artifacts::kDefaultGroupSize);
}

// kl^(1 - w) * (parameters * 4^-bits)^w; a KL of 0 or below stays what it is.
double shrunk_error(double kl, double prior, double prior_weight) {
  return prior_weight == 0 || !(kl > 0)
      ? kl
      : std::exp(
            (1 - prior_weight) * std::log(kl) + prior_weight * std::log(prior));
}

/** The errors of the method at work. */
class Errors {
 public:
  Errors(
      const Inventory& inventory,
      const PlanOptions& options,
      std::span<const LayerSensitivity> measured)
      : options_(options), n_blocks_(inventory.n_blocks) {
    for (const LayerSensitivity& layer : measured) {
      by_name_[{layer.name, layer.group_size}] = &layer;
    }
  }

  double of(const LayerBits& layer, int bits, int group_size) const {
    if (bits == artifacts::kDenseBits) {
      return 0;
    }
    if (options_.method == PlanMethod::Static) {
      return static_error(
          static_priority(artifacts::module_id(layer.name), n_blocks_),
          layer.parameters,
          bits);
    }
    const auto it = by_name_.find({layer.name, group_size});
    if (it == by_name_.end() || !it->second->relative_kl.contains(bits)) {
      fail(
          ErrorKind::Internal,
          "[make_plan] {}: no measurement at {} bits in groups of {}",
          layer.name,
          bits,
          group_size);
    }
    const auto factor = options_.error_factors.find(layer.name);
    return shrunk_error(
               it->second->relative_kl.at(bits),
               static_error(group_prior(group_size), layer.parameters, bits),
               options_.prior_weight) *
        (factor == options_.error_factors.end() ? 1 : factor->second);
  }

 private:
  const PlanOptions& options_;
  int n_blocks_;
  std::map<std::pair<std::string, int>, const LayerSensitivity*> by_name_;
};

/** What is alike for matrices of one layer that kernels multiply at once, as
 * they read the same rows; empty for one that is multiplied alone. */
std::string fused_with(const std::string& module) {
  using artifacts::ModuleRole;
  const artifacts::ModuleId id = artifacts::module_id(module);
  switch (id.role) {
    case ModuleRole::Query:
    case ModuleRole::Key:
    case ModuleRole::Value:
      return fmt::format("{} qkv", id.layer);
    case ModuleRole::Gate:
    case ModuleRole::Up:
      return fmt::format("{} gate, up", id.layer);
    case ModuleRole::ExpertGate:
    case ModuleRole::ExpertUp:
      return fmt::format("{} gate, up of experts", id.layer);
    default:
      return {};
  }
}

/** The free layers that get one width each time, in order. */
std::vector<std::vector<std::size_t>> layers_of_items(
    const std::vector<LayerBits>& layers,
    bool tie) {
  std::vector<std::vector<std::size_t>> items;
  std::map<std::string, std::size_t> tied; // item
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].is_protected) {
      continue;
    }
    const std::string with = tie ? fused_with(layers[i].name) : "";
    const auto [at, is_new] = tied.try_emplace(with, items.size());
    if (with.empty() || is_new) {
      items.push_back({i});
    } else {
      items[at->second].push_back(i);
    }
  }
  return items;
}

Knapsack make_knapsack(
    const models::Checkpoint& checkpoint,
    const std::vector<LayerBits>& layers,
    const PlanOptions& options,
    const Errors& errors,
    Cost cost) {
  Knapsack knapsack{
      .items = {}, .layers = layers_of_items(layers, options.tie)};
  for (const std::vector<std::size_t>& members : knapsack.layers) {
    const std::string& name = layers[members.front()].name;
    AllocationItem item{.name = name, .options = {}};
    // Tied ones read the same rows, and so have as many columns.
    const int columns = weight_of(checkpoint, name).shape[1];
    for (const int bits : options.candidate_bits) {
      for (const int group_size : group_sizes_for(columns, options)) {
        if (bits == artifacts::kDenseBits && group_size != options.group_size) {
          continue; // it has no groups
        }
        WidthOption option{
            .bits = bits, .cost = 0, .error = 0, .group_size = group_size};
        for (const std::size_t i : members) {
          option.cost +=
              option_cost(checkpoint, layers[i], bits, group_size, cost);
          option.error += errors.of(layers[i], bits, group_size);
        }
        item.options.push_back(option);
      }
    }
    knapsack.items.push_back(std::move(item));
  }
  return knapsack;
}

void set_width(
    const WidthOption& option,
    const std::vector<std::size_t>& members,
    std::vector<LayerBits>& layers) {
  for (const std::size_t i : members) {
    layers[i].bits = option.bits;
    layers[i].group_size = option.group_size;
  }
}

void set_widths(
    const Knapsack& knapsack,
    const Allocation& allocation,
    std::vector<LayerBits>& layers) {
  for (std::size_t i = 0; i < knapsack.items.size(); ++i) {
    set_width(
        knapsack.items[i].options[allocation.choice[i]],
        knapsack.layers[i],
        layers);
  }
}

/** Bytes of the file beside the items, at the widest: offsets and shapes have
 * most digits then. */
std::uint64_t other_bytes(
    const models::Checkpoint& checkpoint,
    const Knapsack& knapsack,
    std::vector<LayerBits> layers) {
  std::uint64_t widest = 0;
  for (std::size_t i = 0; i < knapsack.items.size(); ++i) {
    const auto& options = knapsack.items[i].options;
    const WidthOption& option = *std::max_element(
        options.begin(), options.end(), [](const auto& a, const auto& b) {
          return a.cost < b.cost;
        });
    widest += option.cost;
    set_width(option, knapsack.layers[i], layers);
  }
  return planned_bytes(checkpoint, layers) - widest;
}

// Headers change with the widths by a few bytes, so what the allocation may
// spend is found from the file it led to.
Allocation allocate_bytes(
    const models::Checkpoint& checkpoint,
    const std::vector<LayerBits>& base,
    const Knapsack& knapsack,
    std::uint64_t target) {
  const auto bytes_of = [&](const Allocation& allocation) {
    std::vector<LayerBits> layers = base;
    set_widths(knapsack, allocation, layers);
    return planned_bytes(checkpoint, layers);
  };
  const std::uint64_t floor = least_cost(knapsack.items);
  const std::uint64_t other = other_bytes(checkpoint, knapsack, base);
  std::uint64_t budget = std::max(floor, target - std::min(target, other));
  Allocation best = allocate(knapsack.items, budget);
  // More shards may be cut than for the widest file, each with its header.
  for (std::uint64_t bytes = bytes_of(best); bytes > target && budget > floor;
       bytes = bytes_of(best)) {
    budget -= std::min(budget - floor, bytes - target);
    best = allocate(knapsack.items, budget);
  }
  for (int round = 0; round < 4; ++round) {
    const std::uint64_t left = target - bytes_of(best);
    if (left == 0) {
      break;
    }
    const Allocation next = allocate(knapsack.items, best.cost + left);
    if (next.error >= best.error || bytes_of(next) > target) {
      break;
    }
    best = next;
  }
  return best;
}

Allocation allocate_code_bits(
    const Knapsack& knapsack,
    std::span<const LayerBits> layers,
    double target_bpw) {
  const double budget =
      target_bpw * static_cast<double>(free_parameters(layers));
  return allocate(
      knapsack.items, static_cast<std::uint64_t>(std::floor(budget)));
}

} // namespace

void choose_widths(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    const PlanOptions& options,
    std::span<const LayerSensitivity> measured,
    std::vector<LayerBits>& layers) {
  const auto bytes = byte_target(inventory, options);
  const Knapsack knapsack = make_knapsack(
      checkpoint,
      layers,
      options,
      Errors(inventory, options, measured),
      bytes ? Cost::Bytes : Cost::CodeBits);
  set_widths(
      knapsack,
      bytes ? allocate_bytes(checkpoint, layers, knapsack, *bytes)
            : allocate_code_bits(knapsack, layers, target_bpw_of(options)),
      layers);
}

std::vector<int> group_sizes_for(int columns, const PlanOptions& options) {
  std::vector<int> sizes = group_sizes_of(options);
  std::erase_if(sizes, [&](int size) { return columns % size != 0; });
  return sizes;
}

std::uint64_t free_parameters(std::span<const LayerBits> layers) {
  std::uint64_t n = 0;
  for (const LayerBits& layer : layers) {
    n += layer.is_protected ? 0 : layer.parameters;
  }
  return n;
}

} // namespace optiq::quant
