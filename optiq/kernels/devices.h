#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "optiq/kernels/device.h"

namespace optiq::kernels {

/** Whether find_device knows the name. */
bool is_device_name(std::string_view name);

/** "cpu", "mlx", "cuda" (the first card), "cuda:N", or "auto": MLX where it has
 * Metal, else the first NVIDIA card that this build runs on, else the CPU.
 * Throws InvalidInput for another name, and what the device throws where it is
 * not there. */
Device& find_device(std::string_view name);

/** Bytes that arrays and blocks of a device may still take. */
std::uint64_t available_bytes(const Device& device);

/** Throws Exhausted, saying what for, where a device has fewer available. */
void require_bytes(
    const Device& device,
    std::uint64_t needed,
    const std::string& what);

/** x of one device on another; x itself where they are the same. */
mx::array transfer(Device& from, const mx::array& x, Device& to);

} // namespace optiq::kernels
