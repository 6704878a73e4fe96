#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "optiq/kernels/device.h"
#include "optiq/kernels/quantize.h"
#include "optiq/models/checkpoint.h"
#include "optiq/quant/input_metrics.h"

/** How full-precision weights become codes. */
namespace optiq::quant {

/** The affine codes of a weight [out, in] at a width, in groups along `in`;
 * scales and biases have the weight's dtype. Loads the weight when it needs it.
 */
using Rounder = std::function<kernels::AffineWeights(
    const models::CheckpointTensor& weight,
    int bits,
    int group_size)>;

/** Every value by itself to the nearest code, as MLX does it. */
kernels::AffineWeights round_to_nearest(
    const models::CheckpointTensor& weight,
    int bits,
    int group_size);

/** How codes, scales and biases are chosen. */
enum class Rounding {
  Nearest, // round_to_nearest
  Search, // scales and biases of least error, inputs weighted by their squares
  Gptq, // that, and every column makes up for what those before it lost
};

const char* name_of(Rounding rounding); // "nearest", "search", "gptq"
/** Throws InvalidInput for another name. */
Rounding rounding_of(const std::string& name);

/** Of least error in each matrix's metric (kernels::fit_affine); the metrics
 * are asked for with the first matrix. */
Rounder fitting_rounder(std::function<const InputMetrics&()> metrics);

/** What `rounder` makes, kept by the weight's name, width and group size while
 * it fits in `max_bytes`, so that asking again costs nothing. What is kept
 * stays: every pass goes through the weights in one order, in which letting go
 * of the oldest would let go of each just before it is asked for again. For the
 * weights of one checkpoint and one thread; copies share what they keep. */
Rounder memoized(Rounder rounder, std::size_t max_bytes);

/** A module's matrix at a width (kDenseBits: as it is), as convert will write
 * it. */
using MatrixMaker = std::function<
    kernels::Matrix(const std::string& module, int bits, int group_size)>;

/** Of a checkpoint, which must live as long, on a device; throws NotFound for a
 * module that it does not have. */
MatrixMaker matrix_maker(
    const models::Checkpoint& checkpoint,
    Rounder rounder,
    kernels::Device& device = kernels::cpu_device());

} // namespace optiq::quant
