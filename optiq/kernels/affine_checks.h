#pragma once

#include <string>

#include <mlx/array.h>

/** Checks of weights, shared by the devices. All throw InvalidInput; messages
 * begin with `function`. */
namespace optiq::kernels {

namespace mx = mlx::core;

/** Unless MLX's affine format has them. */
void check_affine_format(const char* function, int bits, int group_size);

/** Unless the triple is one of MLX's affine format. */
void check_affine_shapes(
    const char* function,
    const mx::array& weight,
    const mx::array& scales,
    const mx::array& biases,
    int bits,
    int group_size);

/** Unless weight is [out, in] and not empty. */
void check_dense_shape(const char* function, const mx::array& weight);

/** Unless dtype is bf16, f16 or f32. */
void check_float(const char* function, const char* what, mx::Dtype dtype);

/** "[3, 4]", for messages. */
std::string shape_text(const mx::array& x);

} // namespace optiq::kernels
