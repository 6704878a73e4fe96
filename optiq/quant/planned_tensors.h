#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/io/safetensors.h"
#include "optiq/models/checkpoint.h"
#include "optiq/quant/rounder.h"

/** The tensors of the files that convert writes. Their names, types and shapes
 * are the same for every rounder. */
namespace optiq::quant {

namespace mx = mlx::core;

/** Bytes of an array. */
std::uint64_t bytes_of(const mx::Shape& shape, mx::Dtype dtype);
/** Bytes of a tensor in the file. */
std::uint64_t bytes_of(const io::TensorToWrite& tensor);

/** weight, scales and biases of one module, rounded when first asked for and
 * let go with the last of them; of kDenseBits the weight alone. */
std::vector<io::TensorToWrite> quantized_tensors(
    const models::CheckpointTensor& weight,
    int bits,
    int group_size,
    const Rounder& rounder = round_to_nearest);

/** Bytes of those. */
std::uint64_t quantized_bytes(
    const models::CheckpointTensor& weight,
    int bits,
    int group_size);

/** The tensors of model*.safetensors under a plan, in source order, each made
 * when its turn comes and let go afterwards. */
std::vector<io::TensorToWrite> planned_tensors(
    const models::Checkpoint& checkpoint,
    std::span<const artifacts::LayerBits> layers,
    const Rounder& rounder = round_to_nearest);

/** Bytes of model*.safetensors under a plan. */
std::uint64_t planned_bytes(
    const models::Checkpoint& checkpoint,
    std::span<const artifacts::LayerBits> layers);

} // namespace optiq::quant
