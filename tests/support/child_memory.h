#pragma once

#include <cstdint>
#include <fstream>

#include <sys/wait.h>
#include <unistd.h>

#include "optiq/base/system.h"

namespace optiq::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kHasOwnMemory = false; // a sanitizer's memory is counted
#else
inline constexpr bool kHasOwnMemory = true;
#endif

/** Bytes of memory that `work` takes at its peak, in a process of its own. */
template <typename Work>
std::uint64_t peak_memory_of(const Work& work) {
  int ends[2];
  if (::pipe(ends) != 0) {
    return ~0ull;
  }
  const pid_t child = ::fork();
  if (child == 0) {
    std::uint64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages >> pages; // size, resident
    work();
    const std::uint64_t taken = peak_rss_bytes() -
        pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    const ssize_t n = ::write(ends[1], &taken, sizeof(taken));
    ::_exit(n == sizeof(taken) ? 0 : 1);
  }
  ::close(ends[1]);
  std::uint64_t taken = ~0ull; // what a child that died says
  if (::read(ends[0], &taken, sizeof(taken)) != sizeof(taken)) {
    taken = ~0ull;
  }
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  return taken;
}

} // namespace optiq::test
