#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "optiq/artifacts/module_id.h"
#include "optiq/models/checkpoint.h"

/** What a checkpoint offers to quantization. */
namespace optiq::quant {

/** A matrix that quantization may replace. */
struct QuantizableModule {
  std::string name; // without ".weight"
  artifacts::ModuleId id; // of that name
  std::uint64_t parameters = 0;
  int columns = 0; // that a group has to divide
};

/** What a checkpoint offers at one group size. */
struct Inventory {
  std::vector<QuantizableModule> modules; // source order
  std::vector<std::string> kept_dense; // matrices whose rows do not divide
  int n_blocks = 0;
  std::uint64_t parameters = 0; // of all tensors of model*.safetensors
};

/** Throws InvalidInput for a group size that the format does not have. */
void check_group_size(int group_size);

/** Throws as check_group_size does, InvalidInput for a group size that no
 * matrix divides by, Unsupported for a source that is quantized already. */
Inventory take_inventory(const models::Checkpoint& checkpoint, int group_size);

/** The tensor of a module's weight. Throws NotFound. */
const models::CheckpointTensor& weight_of(
    const models::Checkpoint& checkpoint,
    const std::string& module);

} // namespace optiq::quant
