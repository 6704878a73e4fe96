#pragma once

#include <cstddef>

#include <mlx/array.h>

namespace optiq::kernels {

namespace mx = mlx::core;

/** Shapes of a gated delta net layer (Qwen3.5; arXiv 2412.06464). */
struct DeltaNetShape {
  int n_key_heads = 0;
  int n_value_heads = 0;
  int key_dim = 0; // per head
  int value_dim = 0; // per head
  int conv_kernel = 4;

  int qkv_dim() const {
    return 2 * n_key_heads * key_dim + n_value_heads * value_dim;
  }
  /** Floats of one sequence's conv state: the last conv_kernel - 1 rows. */
  std::size_t conv_floats() const {
    return static_cast<std::size_t>(conv_kernel - 1) * qkv_dim();
  }
  /** Floats of one sequence's recurrent state S^T [Hv][Dk][Dv]. */
  std::size_t state_floats() const {
    return static_cast<std::size_t>(n_value_heads) * key_dim * value_dim;
  }
};

/** Constant tensors of one layer, all float32. */
struct DeltaNetWeights {
  mx::array conv; // [qkv_dim, conv_kernel]
  mx::array a_log; // [n_value_heads]
  mx::array dt_bias; // [n_value_heads]
  mx::array norm; // [value_dim]
  float norm_eps = 1e-6f;
};

/** What the input projections of a layer give for the rows of a batch. */
struct DeltaNetInput {
  mx::array qkv; // [T, qkv_dim]
  mx::array z; // [T, Hv * Dv]
  mx::array b; // [T, Hv]
  mx::array a; // [T, Hv]
};

} // namespace optiq::kernels
