#pragma once

#include <cstddef>
#include <cstdint>

#include "optiq/kernels/cpu/activations.h"
#include "optiq/kernels/cpu/output.h"

namespace optiq::kernels::cpu {

/** All rows times up to two panels, of which some units are unpacked. */
struct TileProduct {
  const Activations* x = nullptr; // CellForm::Tiles
  /** Per unit: codes [16 quads][16 outputs][4 inputs] of a byte, then 16 scales
   * and 16 biases in float32. Null: no such panel. */
  const std::uint8_t* panels[2] = {};
  std::size_t first_unit = 0;
  std::size_t units = 0;
  Output to;
  std::size_t columns = 0; // that exist, from to.y on
  bool accumulate = false; // onto y: not the first units
  const std::uint8_t* next[2] = {}; // bytes to fetch meanwhile, or null
  std::size_t next_bytes = 0; // of each
};

/** The sums of multiply_tiled's other kernels, bit for bit. */
void multiply_tiles(const TileProduct& product);

} // namespace optiq::kernels::cpu
