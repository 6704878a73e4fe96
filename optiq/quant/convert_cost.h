#pragma once

#include <cstdint>

#include "optiq/models/checkpoint.h"
#include "optiq/models/model.h"
#include "optiq/quant/sensitivity.h"

/** What a conversion takes: bytes from shapes, seconds from short trials. */
namespace optiq::quant {

/** Peak bytes, beside the process, of quantizing and writing tensor by tensor,
 * and of the run of one token that follows. */
std::uint64_t writing_bytes(
    const io::ModelDirectory& source,
    const models::Checkpoint& checkpoint,
    const artifacts::Plan& plan);

/** What must be free for the writing: the largest tensor as it is read and once
 * more for its parts, which are smaller, and room for heaps and mappings, which
 * count where the address space is limited. */
std::uint64_t writing_room(const models::Checkpoint& checkpoint);

/** Seconds of quantizing every matrix once, from one matrix of each width. */
double quantizing_seconds(
    const models::Checkpoint& checkpoint,
    const artifacts::Plan& plan);

/** Seconds of a layer evaluation (probe_work), from one chunk through the
 * network. */
double layer_seconds(
    const models::Setup& setup,
    const Calibration& calibration);

/** Seconds of measuring the sensitivity, which takes `work` layer evaluations
 * (probe_work), and of choosing among `n_plans` whole
 * models, from one chunk through the network; quantizing apart. */
double measuring_seconds(
    const models::Setup& setup,
    const Calibration& calibration,
    std::uint64_t work,
    std::size_t n_plans);

} // namespace optiq::quant
