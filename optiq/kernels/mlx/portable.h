#pragma once

#include <mlx/array.h>

#include "optiq/kernels/attention.h"
#include "optiq/kernels/delta_net.h"
#include "optiq/kernels/device.h"
#include "optiq/kernels/kv_format.h"

/**
 * What the MLX device is made of: lazy compositions of MLX's operations, its
 * fast ones where it has them, that run wherever MLX runs. In float32 they are
 * the oracle of the CPU's kernels. Results have the dtype of their first
 * argument.
 */
namespace optiq::kernels::portable {

/** A value that does not change the dtype of what it meets: in MLX's C++ every
 * scalar of its own makes float32 of bfloat16. */
mx::array scalar_of(const mx::array& x, float value);

mx::array rms_norm(const mx::array& x, const mx::array& weight, float eps);
mx::array layer_norm(
    const mx::array& x,
    const mx::array& weight,
    float eps,
    const std::optional<mx::array>& bias = {});
mx::array add_bias(const mx::array& x, const mx::array& bias);
mx::array swiglu(const mx::array& gate, const mx::array& up);
mx::array geglu(const mx::array& gate, const mx::array& up);
mx::array
glu(const mx::array& gate, const mx::array& up, Activation activation);
mx::array softcap(const mx::array& x, float cap);
mx::array sigmoid_gate(const mx::array& x, const mx::array& gate);
mx::array normalize(const mx::array& x, const Norm& norm);

/** Turns x [T, n_heads, head_dim] at these positions; the channels behind
 * rotary_dim are kept. */
mx::array rope(
    const mx::array& x,
    std::span<const std::int32_t> positions,
    const Rope& rope);

/** Causal attention of one sequence: q [T, H, D], keys and values [S, Hkv, D];
 * row t sees the first S - T + t + 1 keys, and of those the last `window` when
 * it is not 0. */
mx::array attend(
    const mx::array& q,
    const mx::array& keys,
    const mx::array& values,
    const ScoreRule& rule,
    int window = 0);

/** What one sequence of T tokens leaves behind. */
struct DeltaNetResult {
  mx::array y; // [T, Hv * Dv]
  mx::array conv_state; // [conv_kernel - 1, qkv_dim]
  mx::array state; // [Hv, Dv, Dk] float32
};
DeltaNetResult gated_delta_net(
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    const mx::array& conv_state,
    const mx::array& state);

} // namespace optiq::kernels::portable
