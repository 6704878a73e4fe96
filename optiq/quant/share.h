#pragma once

#include <cstddef>
#include <limits>
#include <string>

/** Parts of the calibration text, measured by several processes or machines. */
namespace optiq::quant {

/** Chunks [first, end). */
struct ChunkRange {
  std::size_t first = 0;
  std::size_t end = std::numeric_limits<std::size_t>::max();
};

/** Share `index`, from 1, of `count`. */
struct Share {
  int index = 1;
  int count = 1;

  /** "2 of 3", as people read it. */
  std::string name() const;
  /** Consecutive, and of all shares together each chunk once; empty where there
   * are more shares than chunks. */
  ChunkRange chunks(std::size_t n_chunks) const;
};

/** "2/3". Throws InvalidInput naming what was found. */
Share parse_share(const std::string& text);

} // namespace optiq::quant
