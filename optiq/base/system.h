#pragma once

#include <cstdint>
#include <string>

namespace optiq {

/** What `optiq doctor` says of the machine, and what admission checks use. */
struct SystemInfo {
  std::string cpu; // model name
  int cores = 1; // processors this process may run on
  /** Of the machine, further limited by cgroup. */
  std::uint64_t total_ram_bytes = 0;
  /** MemAvailable, further limited by cgroup, RLIMIT_AS and RamLimit. */
  std::uint64_t available_ram_bytes = 0;
};

SystemInfo system_info();

/** Processors this process may run on; at least 1. */
int usable_cores();

/** Peak resident set size of this process, bytes. */
std::uint64_t peak_rss_bytes();

/**
 * Throws Exhausted when `needed` exceeds the available RAM; the message gives
 * both numbers and says what the memory is for.
 */
void require_ram(std::uint64_t needed, const std::string& what);

/** Lets this process have `n` files and sockets open, or as many as the system
 * permits: shells often start it with 1024. Returns what it may have. */
std::uint64_t allow_open_files(std::uint64_t n);

/** One heap for all threads of this process from now on: glibc would reserve
 * 64 MB of address space for each thread that allocates, after a limit on it
 * was checked. Nothing to do with another C library. */
void share_one_heap();

} // namespace optiq
