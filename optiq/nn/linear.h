#pragma once

#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/module_id.h"
#include "optiq/nn/forward_context.h"

namespace optiq::nn {

/** A projection y = x W^T + bias, known by its MLX module path. */
struct Linear {
  std::string name; // "language_model.model.layers.3.self_attn.q_proj"
  artifacts::ModuleId id; // of that name
  kernels::Matrix weight; // [out, in]
  std::optional<mx::array> bias; // [out] f32
};

/** What a mixer or an MLP does besides its own work, in the same pass over
 * memory: it reads norm(x), and adds what it finds to the residual. */
struct BlockInput {
  const mx::array& x; // [T, hidden]
  const kernels::Norm* norm = nullptr; // or nothing: x as it is
  const mx::array* residual = nullptr; // [T, hidden], or nothing
};

/** norm(x) through several projections that read the same rows. */
std::vector<mx::array> project(
    const BlockInput& input,
    const std::vector<const Linear*>& linears,
    const ForwardContext& context);

/** activation(gate(norm(x))) * up(norm(x)). */
mx::array project_gated(
    const BlockInput& input,
    const Linear& gate,
    const Linear& up,
    kernels::Activation activation,
    const ForwardContext& context);

/** A block's last projection: y [T, in] -> [T, hidden], plus the residual. */
mx::array project_back(
    const mx::array& y,
    const Linear& linear,
    const BlockInput& input,
    const ForwardContext& context);

} // namespace optiq::nn
