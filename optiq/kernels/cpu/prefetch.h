#pragma once

#include <cstddef>

#include <hwy/base.h>

namespace optiq::kernels::cpu {

/** To the second-level cache: what is read next but one. A hint to the first
 * level evicts what is in use (0.55 instead of 0.8 of the bandwidth). */
HWY_INLINE void prefetch_far(const void* p) {
  __builtin_prefetch(p, 0, 2);
}

/** All lines of [p, p + bytes). */
HWY_INLINE void prefetch_far(const void* p, std::size_t bytes) {
  constexpr std::size_t kLineBytes = 64;
  for (std::size_t at = 0; at < bytes; at += kLineBytes) {
    prefetch_far(static_cast<const std::byte*>(p) + at);
  }
}

} // namespace optiq::kernels::cpu
