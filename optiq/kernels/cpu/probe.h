#pragma once

#include <cstddef>
#include <cstdint>

namespace optiq::kernels::cpu {

/** Name of the target whose code runs. */
const char* running_target();

/** Sum of n 64-bit words: reads each byte once. */
std::uint64_t sum_words(const std::uint64_t* words, std::size_t n);

/** Int8 dots on registers alone; returns something that depends on them. */
std::int32_t spin_dots(std::size_t steps);
/** Multiply-adds of one step of spin_dots. */
std::size_t dots_per_step();

} // namespace optiq::kernels::cpu
