#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "optiq/kernels/kernels.h"
#include "optiq/nn/forward_context.h"

namespace optiq::nn {

namespace mx = mlx::core;

/** A projection y = x W^T + bias, known by its MLX module path. */
struct Linear {
  std::string name; // "language_model.model.layers.3.self_attn.q_proj"
  kernels::Matrix weight; // [out, in]
  std::optional<mx::array> bias; // [out] f32
};

/** What a mixer or an MLP does besides its own work, in the same pass over
 * memory: it reads norm(x), and adds what it finds to the residual. */
struct BlockInput {
  const mx::array& x; // [T, hidden]
  const kernels::RowNorm* norm = nullptr; // or nothing: x as it is
  const mx::array* residual = nullptr; // [T, hidden], or nothing
};

/** Shows the context's observer norm(x), which these linears read. */
void observe_input(
    const BlockInput& input,
    std::span<const Linear* const> linears,
    const ForwardContext& context);

/** norm(x) through several projections that read the same rows. */
std::vector<mx::array> project(
    const BlockInput& input,
    const std::vector<const Linear*>& linears,
    const ForwardContext& context);

/** A block's last projection: y [T, in] -> [T, hidden], plus the residual. */
mx::array project_back(
    const mx::array& y,
    const Linear& linear,
    const BlockInput& input,
    const ForwardContext& context);

/** Columns [begin, begin + width) of x [T, ...], copied. */
mx::array copy_columns(const mx::array& x, int begin, int width);

} // namespace optiq::nn
