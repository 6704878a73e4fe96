#pragma once

#include <cstdint>
#include <optional>

namespace optiq {

/** a * b, or nothing when it does not fit into 64 bits. */
inline std::optional<std::uint64_t> checked_mul(
    std::uint64_t a,
    std::uint64_t b) {
  std::uint64_t r = 0;
  if (__builtin_mul_overflow(a, b, &r)) {
    return std::nullopt;
  }
  return r;
}

/** a + b, or nothing when it does not fit into 64 bits. */
inline std::optional<std::uint64_t> checked_add(
    std::uint64_t a,
    std::uint64_t b) {
  std::uint64_t r = 0;
  if (__builtin_add_overflow(a, b, &r)) {
    return std::nullopt;
  }
  return r;
}

/** a - b, or 0 when b is larger. */
constexpr std::uint64_t saturated_sub(std::uint64_t a, std::uint64_t b) {
  return a > b ? a - b : 0;
}

} // namespace optiq
