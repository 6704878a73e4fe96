#include "optiq/quant/plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "optiq/artifacts/affine_format.h"
#include "optiq/artifacts/module_id.h"
#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/kernels/kernels.h"
#include "optiq/quant/allocation.h"
#include "optiq/quant/static_rules.h"

namespace optiq::quant {

namespace mx = mlx::core;

namespace {

using artifacts::LayerBits;
using artifacts::Plan;

constexpr const char* kWeight = ".weight";

bool is_width(int bits) {
  return artifacts::is_one_of(artifacts::kAffineBits, bits);
}

std::uint64_t count_elements(const mx::Shape& shape) {
  std::uint64_t n = 1;
  for (const auto dim : shape) {
    n *= static_cast<std::uint64_t>(dim);
  }
  return n;
}

bool is_matrix(const models::CheckpointTensor& tensor) {
  return tensor.role == models::TensorRole::Weight &&
      tensor.shape.size() == 2 &&
      artifacts::split_tensor_name(tensor.name).leaf == "weight" &&
      mx::issubdtype(tensor.dtype, mx::floating);
}

std::uint64_t file_bytes(
    const models::Checkpoint& checkpoint,
    std::span<const LayerBits> layers) {
  return io::model_shards_bytes(planned_tensors(checkpoint, layers));
}

std::vector<bool> protection(
    const Inventory& inventory,
    const PlanOptions& options) {
  if (!options.protect || options.method == "uniform") {
    return std::vector<bool>(inventory.modules.size(), false);
  }
  std::vector<artifacts::ModuleId> ids;
  for (const QuantizableModule& module : inventory.modules) {
    ids.push_back(module.id);
  }
  return protected_modules(ids);
}

// Protected modules at the widest candidate, the others at the narrowest.
std::vector<LayerBits> narrowest_layers(
    const Inventory& inventory,
    const PlanOptions& options) {
  const std::vector<bool> is_protected = protection(inventory, options);
  std::vector<LayerBits> layers;
  for (std::size_t i = 0; i < inventory.modules.size(); ++i) {
    layers.push_back(
        {.name = inventory.modules[i].name,
         .bits = is_protected[i] ? options.candidate_bits.back()
                                 : options.candidate_bits.front(),
         .group_size = options.group_size,
         .parameters = inventory.modules[i].parameters,
         .is_protected = is_protected[i],
         .kl = std::nullopt});
  }
  return layers;
}

std::uint64_t free_parameters(const std::vector<LayerBits>& layers) {
  std::uint64_t n = 0;
  for (const LayerBits& layer : layers) {
    n += layer.is_protected ? 0 : layer.parameters;
  }
  return n;
}

std::optional<std::uint64_t> byte_target(
    const Inventory& inventory,
    const PlanOptions& options) {
  if (options.target_bytes) {
    return options.target_bytes;
  }
  if (options.target_file_bpw) {
    return static_cast<std::uint64_t>(std::floor(
        *options.target_file_bpw * static_cast<double>(inventory.parameters) /
        8));
  }
  return std::nullopt;
}

double target_bpw_of(const PlanOptions& options) {
  return options.target_bpw.value_or(kDefaultTargetBpw);
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
  plan.file_bytes = file_bytes(checkpoint, plan.layers);
  plan.file_bpw = artifacts::file_bpw(plan.file_bytes, inventory.parameters);
}

// The free modules as a knapsack. Cost: code bits, or bytes in the file.
struct Knapsack {
  std::vector<AllocationItem> items;
  std::vector<std::size_t> layer; // of each item
};

enum class Cost { CodeBits, Bytes };

std::uint64_t option_cost(
    const models::Checkpoint& checkpoint,
    const LayerBits& layer,
    int bits,
    Cost cost) {
  if (cost == Cost::CodeBits) {
    return layer.parameters * static_cast<std::uint64_t>(bits);
  }
  std::uint64_t bytes = 0;
  for (const auto& tensor : quantized_tensors(
           checkpoint.at(layer.name + kWeight), bits, layer.group_size)) {
    bytes += count_elements(tensor.shape) * mx::size_of(tensor.dtype);
  }
  return bytes;
}

// kl^(1 - w) * (parameters * 4^-bits)^w; a KL of 0 or below stays what it is.
double shrunk_error(double kl, double prior, double prior_weight) {
  return prior_weight == 0 || !(kl > 0)
      ? kl
      : std::exp(
            (1 - prior_weight) * std::log(kl) + prior_weight * std::log(prior));
}

double option_error(
    const LayerBits& layer,
    int bits,
    int n_blocks,
    double prior_weight,
    const std::map<std::string, const artifacts::LayerSensitivity*>* measured) {
  if (measured == nullptr) {
    return static_error(
        static_priority(artifacts::module_id(layer.name), n_blocks),
        layer.parameters,
        bits);
  }
  const auto it = measured->find(layer.name);
  if (it == measured->end() || !it->second->relative_kl.contains(bits)) {
    fail(
        ErrorKind::Internal,
        "[make_plan] {}: no measurement at {} bits",
        layer.name,
        bits);
  }
  return shrunk_error(
      it->second->relative_kl.at(bits),
      static_error(1.0, layer.parameters, bits),
      prior_weight);
}

// Widths within a byte target. Headers change with the widths by a few bytes,
// so what the allocation may spend is found from the file it led to.
Allocation allocate_bytes(
    const models::Checkpoint& checkpoint,
    const std::vector<LayerBits>& base,
    const PlanOptions& options,
    const Knapsack& knapsack,
    std::uint64_t target) {
  const auto bytes_of = [&](const Allocation& allocation) {
    std::vector<LayerBits> layers = base;
    for (std::size_t i = 0; i < knapsack.layer.size(); ++i) {
      layers[knapsack.layer[i]].bits =
          knapsack.items[i].options[allocation.choice[i]].bits;
    }
    return file_bytes(checkpoint, layers);
  };
  const std::uint64_t floor = least_cost(knapsack.items);
  std::uint64_t widest = 0;
  std::vector<LayerBits> layers = base;
  for (std::size_t i = 0; i < knapsack.layer.size(); ++i) {
    widest += knapsack.items[i].options.back().cost;
    layers[knapsack.layer[i]].bits = options.candidate_bits.back();
  }
  // Offsets and shapes have most digits when everything is widest.
  const std::uint64_t other = file_bytes(checkpoint, layers) - widest;
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

Knapsack make_knapsack(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    const PlanOptions& options,
    std::span<const artifacts::LayerSensitivity> measured,
    const std::vector<LayerBits>& layers,
    Cost cost) {
  std::map<std::string, const artifacts::LayerSensitivity*> by_name;
  for (const auto& layer : measured) {
    by_name[layer.name] = &layer;
  }
  const auto* errors = options.method == "optiq" ? &by_name : nullptr;
  Knapsack knapsack;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].is_protected) {
      continue;
    }
    AllocationItem item{.name = layers[i].name, .options = {}};
    for (const int bits : options.candidate_bits) {
      item.options.push_back(
          {bits,
           option_cost(checkpoint, layers[i], bits, cost),
           option_error(
               layers[i],
               bits,
               inventory.n_blocks,
               options.prior_weight,
               errors)});
    }
    knapsack.items.push_back(std::move(item));
    knapsack.layer.push_back(i);
  }
  return knapsack;
}

void set_layer_kl(
    std::span<const artifacts::LayerSensitivity> measured,
    std::vector<LayerBits>& layers) {
  std::map<std::string, LayerBits*> by_name;
  for (LayerBits& layer : layers) {
    by_name[layer.name] = &layer;
  }
  for (const auto& sensitivity : measured) {
    const auto it = by_name.find(sensitivity.name);
    if (it != by_name.end() && sensitivity.kl.contains(it->second->bits)) {
      it->second->kl = sensitivity.kl.at(it->second->bits);
    }
  }
}

void refuse_quantized(const models::Checkpoint& checkpoint) {
  for (const models::CheckpointTensor& tensor : checkpoint.tensors) {
    if (tensor.role == models::TensorRole::Weight &&
        artifacts::split_tensor_name(tensor.name).leaf == "scales") {
      fail(
          ErrorKind::Unsupported,
          "[convert] tensor '{}': the source is quantized already, expected "
          "full-precision weights. Convert the original model.",
          tensor.name);
    }
  }
}

} // namespace

Inventory take_inventory(const models::Checkpoint& checkpoint, int group_size) {
  if (!artifacts::is_one_of(artifacts::kAffineGroupSizes, group_size)) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --group-size {}: expected {}.",
        group_size,
        artifacts::list_text(artifacts::kAffineGroupSizes));
  }
  refuse_quantized(checkpoint);
  Inventory inventory;
  int last_block = -1;
  for (const models::CheckpointTensor& tensor : checkpoint.tensors) {
    if (tensor.role != models::TensorRole::Weight) {
      continue;
    }
    const std::uint64_t n = count_elements(tensor.shape);
    inventory.parameters += n;
    last_block = std::max(last_block, artifacts::layer_of(tensor.name));
    if (!is_matrix(tensor)) {
      continue;
    }
    const std::string name = artifacts::split_tensor_name(tensor.name).module;
    if (tensor.shape[1] % group_size == 0) {
      inventory.modules.push_back({name, artifacts::module_id(name), n});
    } else {
      inventory.kept_dense.push_back(name);
    }
  }
  inventory.n_blocks = last_block + 1;
  if (inventory.modules.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --group-size {}: no matrix of the model has rows that "
        "divide by it ({} matrices). Try 32.",
        group_size,
        inventory.kept_dense.size());
  }
  return inventory;
}

void validate(PlanOptions& options) {
  const bool uniform = options.method == "uniform";
  if (!uniform && options.method != "optiq" && options.method != "static") {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --method {}: expected optiq, static or uniform.",
        options.method);
  }
  if (uniform) {
    options.candidate_bits = {options.uniform_bits};
  }
  auto& bits = options.candidate_bits;
  std::sort(bits.begin(), bits.end());
  bits.erase(std::unique(bits.begin(), bits.end()), bits.end());
  for (const int b : bits) {
    if (!is_width(b)) {
      fail(
          ErrorKind::InvalidInput,
          "[convert] {} {}: expected widths of {} bits.",
          uniform ? "--bits" : "--candidate-bits",
          b,
          artifacts::list_text(artifacts::kAffineBits));
    }
  }
  if (bits.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --candidate-bits: none given, expected a list like 4,8.");
  }
  const int n_targets = (options.target_bpw ? 1 : 0) +
      (options.target_file_bpw ? 1 : 0) + (options.target_bytes ? 1 : 0);
  if (n_targets > 1 || (uniform && n_targets > 0)) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] {} targets with --method {}: expected {}.",
        n_targets,
        options.method,
        uniform ? "none, since --bits says it all"
                : "one of --target-bpw, --target-file-bpw and --target-size");
  }
  for (const auto& [name, value] :
       {std::pair("--target-bpw", options.target_bpw),
        std::pair("--target-file-bpw", options.target_file_bpw)}) {
    if (value && !(*value > 0 && *value <= 64)) {
      fail(
          ErrorKind::InvalidInput,
          "[convert] {} {}: expected bits per weight, above 0 and at most 64.",
          name,
          *value);
    }
  }
}

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
  if (options.method == "uniform") {
    return;
  }
  if (const auto target = byte_target(inventory, options)) {
    const std::uint64_t floor =
        file_bytes(checkpoint, narrowest_layers(inventory, options));
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
  if (options.method != "uniform") {
    const auto bytes = byte_target(inventory, options);
    const Knapsack knapsack = make_knapsack(
        checkpoint,
        inventory,
        options,
        measured,
        plan.layers,
        bytes ? Cost::Bytes : Cost::CodeBits);
    Allocation chosen;
    if (bytes) {
      plan.target_bytes = *bytes;
      chosen =
          allocate_bytes(checkpoint, plan.layers, options, knapsack, *bytes);
    } else {
      plan.target_bpw = target_bpw_of(options);
      const double budget =
          *plan.target_bpw * static_cast<double>(free_parameters(plan.layers));
      chosen = allocate(
          knapsack.items, static_cast<std::uint64_t>(std::floor(budget)));
    }
    for (std::size_t i = 0; i < knapsack.layer.size(); ++i) {
      plan.layers[knapsack.layer[i]].bits =
          knapsack.items[i].options[chosen.choice[i]].bits;
    }
  }
  if (options.method == "optiq") {
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
        layer.group_size != plan.group_size || !is_width(layer.bits)) {
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

std::vector<io::TensorToWrite> quantized_tensors(
    const models::CheckpointTensor& weight,
    int bits,
    int group_size) {
  const std::string module = artifacts::split_tensor_name(weight.name).module;
  const int out = weight.shape[0];
  const int in = weight.shape[1];
  // Made with the first of the three, let go with the last: files are written
  // in this order.
  const auto made = std::make_shared<std::optional<kernels::AffineWeights>>();
  const auto quantize = [made, load = weight.load, bits, group_size]() {
    if (!made->has_value()) {
      *made = kernels::quantize_affine(load(), bits, group_size);
    }
    return **made;
  };
  const mx::Shape packed = {out, in * bits / 32};
  const mx::Shape groups = {out, in / group_size};
  return {
      {module + ".weight",
       mx::uint32,
       packed,
       [quantize] { return quantize().weight; }},
      {module + ".scales",
       weight.dtype,
       groups,
       [quantize] { return quantize().scales; }},
      {module + ".biases",
       weight.dtype,
       groups,
       [quantize, made, drop = weight.drop] {
         mx::array biases = quantize().biases;
         made->reset();
         drop();
         return biases;
       }}};
}

std::vector<io::TensorToWrite> planned_tensors(
    const models::Checkpoint& checkpoint,
    std::span<const LayerBits> layers) {
  std::map<std::string, const LayerBits*> by_tensor;
  for (const LayerBits& layer : layers) {
    by_tensor[layer.name + kWeight] = &layer;
  }
  std::vector<io::TensorToWrite> tensors;
  for (const models::CheckpointTensor& tensor : checkpoint.tensors) {
    if (tensor.role != models::TensorRole::Weight) {
      continue;
    }
    const auto it = by_tensor.find(tensor.name);
    if (it == by_tensor.end()) {
      tensors.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.load});
      continue;
    }
    for (auto& part :
         quantized_tensors(tensor, it->second->bits, it->second->group_size)) {
      tensors.push_back(std::move(part));
    }
  }
  return tensors;
}

int default_bits(const Plan& plan) {
  std::map<int, std::uint64_t> parameters;
  for (const LayerBits& layer : plan.layers) {
    parameters[layer.bits] += layer.parameters;
  }
  return std::max_element(
             parameters.begin(),
             parameters.end(),
             [](auto& a, auto& b) { return a.second < b.second; })
      ->first;
}

} // namespace optiq::quant
