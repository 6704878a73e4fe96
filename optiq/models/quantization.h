#pragma once

#include <optional>
#include <string>

#include "optiq/models/checkpoint.h"

/**
 * Which matrices of a checkpoint are quantized, and how. A quantized module is
 * a triple of tensors (weight, scales, biases); config.json's `quantization`
 * block states defaults and, by module path, entries:
 *
 *   "quantization": { "bits": int, "group_size": int, "mode": "affine"?,
 *                     <module>: { "bits": int?, "group_size": int?, "mode"? }
 *                               | true (the block's) | false | null (dense) }
 *
 * The same object may be under `quantization_config`, there or in text_config.
 * As in mlx-lm, an entry must agree with the tensors' shapes; without one, the
 * shapes decide.
 */
namespace optiq::models {

/** Of a module in MLX's affine format. */
struct Quantization {
  int bits = 0; // of artifacts::kAffineBits
  int group_size = 0; // of artifacts::kAffineGroupSizes
};

/**
 * Width and group of a module; nothing when it is dense. With the length of
 * its rows, `in_features`, the shapes leave no choice; without it, the module's
 * entry and the block's defaults choose among what they allow. Throws Corrupt
 * when shapes and entry disagree, Unsupported for a mode that is not affine.
 */
std::optional<Quantization> quantization_of(
    const artifacts::Json& config,
    const Checkpoint& checkpoint,
    const std::string& module,
    std::optional<int> in_features = std::nullopt);

/** Throws Unsupported, naming the method, for weights that another library
 * than MLX quantized (quant_method awq, gptq, fp8, ...). */
void refuse_foreign_quantization(const io::ModelDirectory& directory);

} // namespace optiq::models
