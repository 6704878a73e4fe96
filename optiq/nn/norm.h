#pragma once

#include <optional>

#include "optiq/kernels/kernels.h"

namespace optiq::nn {

namespace mx = mlx::core;

/** RMSNorm (arXiv 1910.07467) or LayerNorm (arXiv 1607.06450). */
struct Norm {
  mx::array weight; // [D]
  float eps = 0.f;
  bool is_layer_norm = false;
  std::optional<mx::array> bias; // [D], of a LayerNorm
};

/** Over the last axis of x [T, D]. */
mx::array run_norm(const Norm& norm, const mx::array& x);

} // namespace optiq::nn
