#include "optiq/quant/source_notices.h"

#include <cstdint>

#include <fmt/format.h>

#include "optiq/artifacts/size.h"
#include "optiq/quant/planned_tensors.h"

namespace optiq::quant {

std::vector<std::string> source_notices(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory) {
  std::vector<std::string> notices;
  std::size_t n_towers = 0;
  std::uint64_t tower_bytes = 0;
  for (const models::CheckpointTensor& tensor : checkpoint.tensors) {
    if (tensor.role == models::TensorRole::Tower) {
      tower_bytes += bytes_of(tensor.shape, tensor.dtype);
      ++n_towers;
    }
  }
  if (n_towers > 0) {
    notices.push_back(fmt::format(
        "{} vision or audio tensors ({}) are left out: the result is a text "
        "model",
        n_towers,
        artifacts::format_size(tower_bytes)));
  }
  if (!inventory.kept_dense.empty()) {
    std::string names;
    for (const std::string& name : inventory.kept_dense) {
      names += (names.empty() ? "" : ", ") + name;
    }
    notices.push_back(fmt::format(
        "{} matrices stay as they are, because their rows do not divide by "
        "the group size: {}",
        inventory.kept_dense.size(),
        names));
  }
  return notices;
}

} // namespace optiq::quant
