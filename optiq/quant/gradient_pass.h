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

/** Floats of a gradient that are there at once: in the host's memory, and in a
 * device's own. */
inline constexpr int kGradientTile = 1 << 20;
inline constexpr int kOwnGradientTile = 1 << 24;

/** A forward, two products of its size on the way back, attention and what lies
 * between; the layers that run again are counted too. */
inline constexpr std::uint64_t kForwardsOfPass = 5;

/** Some rows of dL/dW [out, in], each at most once: [rows.size(), in]. */
using GradientRows = std::function<
    void(std::span<const int> rows, std::span<const float> gradient)>;

/** Some columns of dL/dy, or the rows of dL/dW that they make, on the device.
 */
using ColumnTile = std::function<
    void(std::span<const int> rows, const mlx::core::array& tile)>;

/** Columns of dy [T, out], as many at a time as make a tile of `width` each. */
void for_tiles(
    kernels::Device& device,
    const mlx::core::array& dy,
    int width,
    const ColumnTile& body);

/** dL/dW of one use of a matrix in a product, some rows at a time. */
void for_gradient_tiles(
    kernels::Device& device,
    const train::WeightUse& use,
    const ColumnTile& body);

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
