#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace optiq {

/** What limits the memory of this process; absent = no such limit. */
struct MemoryLimits {
  std::optional<std::uint64_t> total; // of the machine or its tightest cgroup
  std::optional<std::uint64_t> available;
};

/**
 * Reads proc/meminfo, proc/self/cgroup and sys/fs/cgroup (v1 and v2) below
 * `root` ("/" but for tests). Every ancestor of the process's cgroup counts;
 * file pages of a cgroup are counted as available, the kernel reclaims them.
 */
MemoryLimits read_memory_limits(const std::filesystem::path& root);

/** What a process has in memory, bytes. */
struct ResidentMemory {
  std::uint64_t heap = 0; // and stacks: what no file has
  std::uint64_t file = 0; // pages of mapped files
};

/** Of this process; nothing where the system does not say. */
std::optional<ResidentMemory> resident_memory();

} // namespace optiq
