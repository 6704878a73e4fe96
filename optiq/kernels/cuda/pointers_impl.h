#pragma once

#include <cstdint>

#include "optiq/kernels/cuda/card.h"

/** Addresses of a card as the pointers that its kernels take. */
namespace optiq::kernels::cuda {

template <class T>
T* pointer_of(DevicePointer address) {
  return reinterpret_cast<T*>(address);
}
inline const std::uint32_t* words_of(DevicePointer address) {
  return pointer_of<const std::uint32_t>(address);
}
inline std::uint32_t* mutable_words_of(DevicePointer address) {
  return pointer_of<std::uint32_t>(address);
}
inline const std::uint16_t* halves_of(DevicePointer address) {
  return pointer_of<const std::uint16_t>(address);
}

/** A thread for each of n items. */
inline Grid grid_of(std::int64_t n) {
  constexpr std::int64_t kThreads = 256;
  return {
      .x = static_cast<std::size_t>((n + kThreads - 1) / kThreads),
      .threads = kThreads};
}

/** Rows, of which there may be more than a grid has in any other place, by a
 * thread for each of their columns. */
inline Grid grid_of_rows(std::size_t rows, std::int64_t columns) {
  Grid grid = grid_of(columns);
  grid.y = grid.x;
  grid.x = rows;
  return grid;
}

/** The floats of an array of the card. */
inline const float*
floats_of(const char* function, const Card& card, const mx::array& x) {
  return pointer_of<const float>(card.address(function, x));
}
inline float* new_floats_of(const Card& card, const mx::array& x) {
  return pointer_of<float>(card.address("output", x));
}

} // namespace optiq::kernels::cuda
