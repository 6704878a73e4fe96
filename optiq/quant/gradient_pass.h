#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "optiq/models/model.h"
#include "optiq/quant/calibration.h"
#include "optiq/train/backpropagation.h"

/** A forward and a way back of one chunk of calibration text at a time, on
 * which gradients of weights are made, used and let go. */
namespace optiq::quant {

/** Floats of a gradient that are there at once. */
inline constexpr int kGradientTile = 1 << 20;

/** A forward, two products of its size on the way back, attention and what lies
 * between; the layers that run again are counted too. */
inline constexpr std::uint64_t kForwardsOfPass = 5;

/** Some rows of dL/dW [out, in], each at most once: [rows.size(), in]. */
using GradientRows = std::function<
    void(std::span<const int> rows, std::span<const float> gradient)>;

/** dL/dW of one use of a matrix, some rows at a time. */
void for_gradient_rows(
    kernels::Device& device,
    const train::WeightUse& use,
    const GradientRows& body);

/** Whether a chunk's arrays are all kept for the way back: where they take at
 * most `max_kept_bytes`; else only what the layers read, and each runs again.
 */
bool keeps_layers(
    const models::Model& model,
    const Calibration& calibration,
    std::size_t max_kept_bytes);

/** Bytes of a pass beside the weights and tiles of gradients. */
std::uint64_t gradient_pass_bytes(
    const models::Model& model,
    const Calibration& calibration,
    std::size_t max_kept_bytes);

} // namespace optiq::quant
