#pragma once

#include <string>
#include <vector>

#include "optiq/kernels/kernels.h"

namespace optiq::nn {

namespace mx = mlx::core;

/** A projection y = x W^T without bias, known by its MLX module path. */
struct Linear {
  std::string name; // "language_model.model.layers.3.self_attn.q_proj"
  kernels::Matrix weight; // [out, in]
};

/** x [T, in] through several projections that read the same rows. */
std::vector<mx::array> project(
    const mx::array& x,
    const std::vector<const Linear*>& linears,
    kernels::Compute compute);

} // namespace optiq::nn
