#pragma once

#include <cstdint>

namespace optiq::train {

/**
 * Random numbers without a state: what is drawn is told by a seed and a place,
 * so that training continued anywhere draws the same. SplitMix64's finalizer
 * (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)
 * over the seed and two counters.
 */
constexpr std::uint64_t
random_bits(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter) {
  const auto mix = [](std::uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  };
  return mix(mix(mix(seed) ^ stream) ^ counter);
}

/** In [0, 1), of 53 bits. */
constexpr double random_uniform(
    std::uint64_t seed,
    std::uint64_t stream,
    std::uint64_t counter) {
  return static_cast<double>(random_bits(seed, stream, counter) >> 11) *
      0x1p-53;
}

} // namespace optiq::train
