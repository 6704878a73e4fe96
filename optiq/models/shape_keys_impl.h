#pragma once

#include <cstddef>
#include <string>

#include <mlx/array.h>

namespace optiq::models {

/** The keys of config.json that decide an axis of a tensor, by its MLX name:
 * "num_key_value_heads, head_dim"; "" where nothing is known of it. */
std::string config_keys_of(const std::string& tensor, std::size_t axis);

/** Those of all axes in which two shapes of one rank differ, each once. */
std::string config_keys_of(
    const std::string& tensor,
    const mlx::core::Shape& found,
    const mlx::core::Shape& expected);

} // namespace optiq::models
