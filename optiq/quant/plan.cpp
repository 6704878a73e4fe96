#include "optiq/quant/plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "optiq/artifacts/affine_format.h"
#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/quant/planned_tensors.h"
#include "optiq/quant/static_rules.h"
#include "optiq/quant/width_choice.h"

namespace optiq::quant {
namespace {

using artifacts::LayerBits;
using artifacts::Plan;
using artifacts::PlanMethod;

std::vector<bool> protection(
    const Inventory& inventory,
    const PlanOptions& options) {
  if (!options.protect || options.method == PlanMethod::Uniform) {
    return std::vector<bool>(inventory.modules.size(), false);
  }
  std::vector<artifacts::ModuleId> ids;
  for (const QuantizableModule& module : inventory.modules) {
    ids.push_back(module.id);
  }
  return protected_modules(ids);
}

// Protected modules at the widest candidate in the smallest groups, the others
// at the narrowest in the largest.
std::vector<LayerBits> narrowest_layers(
    const Inventory& inventory,
    const PlanOptions& options) {
  const std::vector<bool> is_protected = protection(inventory, options);
  std::vector<LayerBits> layers;
  for (std::size_t i = 0; i < inventory.modules.size(); ++i) {
    const QuantizableModule& module = inventory.modules[i];
    layers.push_back(
        {.name = module.name,
         .bits = is_protected[i] ? widest_bits(options)
                                 : options.candidate_bits.front(),
         .group_size = is_protected[i]
             ? options.group_size
             : group_sizes_for(module.columns, options).back(),
         .parameters = module.parameters,
         .is_protected = is_protected[i],
         .kl = std::nullopt});
  }
  return layers;
}

// Totals that follow from the widths.
void set_totals(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    Plan& plan) {
  double code_bits = 0;
  plan.predicted_kl = 0;
  for (const LayerBits& layer : plan.layers) {
    code_bits += layer.is_protected
        ? 0.0
        : static_cast<double>(layer.parameters) * layer.bits;
    plan.predicted_kl += layer.kl.value_or(0);
  }
  const std::uint64_t n = free_parameters(plan.layers);
  plan.achieved_bpw = n == 0 ? 0 : code_bits / static_cast<double>(n);
  plan.file_bytes = planned_bytes(checkpoint, plan.layers);
  plan.file_bpw = artifacts::file_bpw(plan.file_bytes, inventory.parameters);
}

void set_layer_kl(
    std::span<const artifacts::LayerSensitivity> measured,
    std::vector<LayerBits>& layers) {
  std::map<std::pair<std::string, int>, LayerBits*> by_name;
  for (LayerBits& layer : layers) {
    by_name[{layer.name, layer.group_size}] = &layer;
  }
  for (const auto& sensitivity : measured) {
    const auto it = by_name.find({sensitivity.name, sensitivity.group_size});
    if (it != by_name.end() && sensitivity.kl.contains(it->second->bits)) {
      it->second->kl = sensitivity.kl.at(it->second->bits);
    }
  }
  for (LayerBits& layer : layers) {
    if (layer.bits == artifacts::kDenseBits && !layer.is_protected) {
      layer.kl = 0;
    }
  }
}

/** What most quantized parameters have; `otherwise` where there are none. */
int most_common(const Plan& plan, int LayerBits::*member, int otherwise) {
  std::map<int, std::uint64_t> parameters{{otherwise, 0}};
  for (const LayerBits& layer : plan.layers) {
    if (layer.bits != artifacts::kDenseBits) {
      parameters[layer.*member] += layer.parameters;
    }
  }
  return std::max_element(
             parameters.begin(),
             parameters.end(),
             [](auto& a, auto& b) { return a.second < b.second; })
      ->first;
}

} // namespace

std::vector<std::string> free_modules(
    const Inventory& inventory,
    const PlanOptions& options) {
  const std::vector<bool> is_protected = protection(inventory, options);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < inventory.modules.size(); ++i) {
    if (!is_protected[i]) {
      names.push_back(inventory.modules[i].name);
    }
  }
  return names;
}

void require_feasible(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    const PlanOptions& options) {
  if (options.method == PlanMethod::Uniform || options.target_kl) {
    return;
  }
  if (const auto target = byte_target(inventory, options)) {
    const std::uint64_t floor = size_range(checkpoint, inventory, options).low;
    if (*target < floor) {
      fail(
          ErrorKind::InvalidInput,
          "[convert] the target is {} bytes, the least possible with these "
          "candidates{} is {} bytes ({:.3f} file bpw). Raise the target, or "
          "allow fewer bits with --candidate-bits.",
          *target,
          options.protect ? " and protection" : "",
          floor,
          // Rounded up, so that the number printed is itself feasible.
          std::ceil(artifacts::file_bpw(floor, inventory.parameters) * 1000) /
              1000);
    }
  } else if (target_bpw_of(options) < options.candidate_bits.front()) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --target-bpw {}: the least possible with these candidates "
        "is {}. Raise the target, or allow fewer bits with --candidate-bits.",
        target_bpw_of(options),
        options.candidate_bits.front());
  }
}

SizeRange size_range(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    const PlanOptions& options) {
  std::vector<LayerBits> layers = narrowest_layers(inventory, options);
  SizeRange range;
  range.low = planned_bytes(checkpoint, layers);
  for (LayerBits& layer : layers) {
    if (!layer.is_protected) {
      layer.bits = options.candidate_bits.back();
      layer.group_size = options.group_size;
    }
  }
  range.high = planned_bytes(checkpoint, layers);
  return range;
}

Plan make_plan(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    const PlanOptions& options,
    std::span<const artifacts::LayerSensitivity> measured) {
  require_feasible(checkpoint, inventory, options);
  Plan plan;
  plan.method = options.method;
  plan.group_size = options.group_size;
  plan.candidate_bits = options.candidate_bits;
  plan.layers = narrowest_layers(inventory, options);
  if (options.method != PlanMethod::Uniform) {
    plan.target_bytes = byte_target(inventory, options);
    if (!plan.target_bytes) {
      plan.target_bpw = target_bpw_of(options);
    }
    choose_widths(checkpoint, inventory, options, measured, plan.layers);
    plan.group_size = default_group_size(plan);
  }
  if (options.method == PlanMethod::Optiq) {
    plan.prior_weight = options.prior_weight;
    set_layer_kl(measured, plan.layers);
  }
  set_totals(checkpoint, inventory, plan);
  return plan;
}

Plan adopt_plan(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    Plan plan) {
  if (plan.layers.size() != inventory.modules.size()) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] the plan has {} modules, the model {} that can be quantized "
        "in groups of {}. Was it made for another model?",
        plan.layers.size(),
        inventory.modules.size(),
        plan.group_size);
  }
  for (std::size_t i = 0; i < plan.layers.size(); ++i) {
    const LayerBits& layer = plan.layers[i];
    const QuantizableModule& module = inventory.modules[i];
    if (layer.name != module.name || layer.parameters != module.parameters ||
        !artifacts::is_one_of(artifacts::kAffineGroupSizes, layer.group_size) ||
        module.columns % layer.group_size != 0 ||
        (!artifacts::is_one_of(artifacts::kAffineBits, layer.bits) &&
         layer.bits != artifacts::kDenseBits)) {
      fail(
          ErrorKind::InvalidInput,
          "[convert] the plan's module {} is '{}' ({} parameters, {} bits, "
          "group {}), the model's '{}' ({} parameters). Was it made for "
          "another model?",
          i,
          layer.name,
          layer.parameters,
          layer.bits,
          layer.group_size,
          module.name,
          module.parameters);
    }
  }
  set_totals(checkpoint, inventory, plan);
  return plan;
}

int default_bits(const Plan& plan) {
  return most_common(
      plan,
      &LayerBits::bits,
      plan.candidate_bits.empty() ? artifacts::kAffineBits[0]
                                  : plan.candidate_bits.front());
}

int default_group_size(const Plan& plan) {
  return most_common(plan, &LayerBits::group_size, plan.group_size);
}

} // namespace optiq::quant
