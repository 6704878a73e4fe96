#include "optiq/quant/inventory.h"

#include <algorithm>

#include "optiq/artifacts/affine_format.h"
#include "optiq/base/error.h"

namespace optiq::quant {

namespace mx = mlx::core;

namespace {

std::uint64_t count_elements(const mx::Shape& shape) {
  std::uint64_t n = 1;
  for (const auto dim : shape) {
    n *= static_cast<std::uint64_t>(dim);
  }
  return n;
}

void refuse_quantized(const models::CheckpointTensor& tensor) {
  if (artifacts::split_tensor_name(tensor.name).leaf == "scales") {
    fail(
        ErrorKind::Unsupported,
        "[convert] tensor '{}': the source is quantized already, expected "
        "full-precision weights. Convert the original model.",
        tensor.name);
  }
}

} // namespace

void check_group_size(int group_size) {
  if (!artifacts::is_one_of(artifacts::kAffineGroupSizes, group_size)) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --group-size {}: expected {}.",
        group_size,
        artifacts::list_text(artifacts::kAffineGroupSizes));
  }
}

Inventory take_inventory(const models::Checkpoint& checkpoint, int group_size) {
  check_group_size(group_size);
  Inventory inventory;
  int last_block = -1;
  for (const models::CheckpointTensor& tensor : checkpoint.tensors) {
    if (tensor.role != models::TensorRole::Weight) {
      continue;
    }
    refuse_quantized(tensor);
    const std::uint64_t n = count_elements(tensor.shape);
    inventory.parameters += n;
    const auto [module, leaf] = artifacts::split_tensor_name(tensor.name);
    const artifacts::ModuleId id = artifacts::module_id(module);
    last_block = std::max(last_block, id.layer);
    if (leaf != "weight" || tensor.shape.size() != 2 ||
        !mx::issubdtype(tensor.dtype, mx::floating)) {
      continue;
    }
    if (tensor.shape[1] % group_size == 0) {
      inventory.modules.push_back({module, id, n, tensor.shape[1]});
    } else {
      inventory.kept_dense.push_back(module);
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

const models::CheckpointTensor& weight_of(
    const models::Checkpoint& checkpoint,
    const std::string& module) {
  return checkpoint.at(module + ".weight");
}

} // namespace optiq::quant
