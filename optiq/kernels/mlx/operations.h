#pragma once

#include <optional>
#include <span>
#include <vector>

#include <mlx/array.h>

#include "optiq/kernels/device.h"
#include "optiq/kernels/mlx/block_arrays.h"

/** The operations of the MLX device that are more than one of MLX's. Shapes and
 * errors are those of device.h. */
namespace optiq::kernels::portable {

inline constexpr const char* kDeviceName = "mlx";

/** The dtype of activations. Throws Unsupported for Compute::Int8. */
mx::Dtype activation_dtype(Compute compute);

/** The arrays as they came, evaluated: either of them dense, or MLX's triple.
 */
struct MatrixArrays final : MatrixStorage {
  explicit MatrixArrays(mx::array w) : weight(std::move(w)) {}

  mx::array weight; // [out, in], or u32 words
  std::optional<mx::array> scales;
  std::optional<mx::array> biases;
};

Matrix dense_matrix(const mx::array& weight);
Matrix quantized_matrix(
    const mx::array& weight,
    const mx::array& scales,
    const mx::array& biases,
    int bits,
    int group_size);

std::vector<mx::array> multiply(const mx::array& x, const Product& product);
mx::array
embed(std::span<const std::int32_t> ids, const Matrix& weight, float scale);

/** Marks the blocks that it writes as pending. */
mx::array attend(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    const KvFormat& format,
    PendingBlocks& pending);
/** The same of whole sequences, without blocks. */
mx::array attend_whole(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    int window);
mx::array gated_delta_net(
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const Segment> segments,
    PendingBlocks& pending);

} // namespace optiq::kernels::portable
