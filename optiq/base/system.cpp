#include "optiq/base/system.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include "optiq/base/checked.h"
#include "optiq/base/error.h"
#include "optiq/base/ram_limit.h"
#include "optiq/base/system_impl.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;

/** A number at the start of `text`; nothing for "max" and other words. */
std::optional<std::uint64_t> parse_number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::uint64_t value = 0;
  const auto [next, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) {
    return std::nullopt;
  }
  return value;
}

/** The text behind `key` on the first line that starts with it. */
std::optional<std::string> line_after(
    const fs::path& file,
    const std::string& key) {
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line)) {
    if (line.starts_with(key)) {
      return line.substr(key.size());
    }
  }
  return std::nullopt;
}

std::optional<std::uint64_t> number_after(
    const fs::path& file,
    const std::string& key) {
  const auto text = line_after(file, key);
  return text ? parse_number(*text) : std::nullopt;
}

/** Keeps the smaller of what is known. */
void lower(
    std::optional<std::uint64_t>& limit,
    std::optional<std::uint64_t> value) {
  if (value && (!limit || *value < *limit)) {
    limit = value;
  }
}

/** Names of the files of one cgroup version. */
struct CgroupFiles {
  const char* mount;
  const char* limit;
  const char* usage;
  const char* active_file; // keys of memory.stat
  const char* inactive_file;
};

constexpr CgroupFiles kCgroupV1 = {
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_active_file ",
    "total_inactive_file "};
constexpr CgroupFiles kCgroupV2 = {
    "sys/fs/cgroup",
    "memory.max",
    "memory.current",
    "active_file ",
    "inactive_file "};

void apply_cgroup_folder(
    const fs::path& folder,
    const CgroupFiles& files,
    MemoryLimits& limits) {
  const auto limit = number_after(folder / files.limit, "");
  if (!limit) {
    return; // "max", or this version is not mounted here
  }
  const std::uint64_t usage =
      number_after(folder / files.usage, "").value_or(0);
  const fs::path stat = folder / "memory.stat";
  const std::uint64_t reclaimable =
      number_after(stat, files.active_file).value_or(0) +
      number_after(stat, files.inactive_file).value_or(0);
  lower(limits.total, limit);
  lower(
      limits.available,
      saturated_sub(*limit, saturated_sub(usage, reclaimable)));
}

/** The process's cgroup and its ancestors up to the mount. In a container the
 * path may be the host's: the mount itself is looked at in any case. */
void apply_cgroup(
    const fs::path& root,
    const CgroupFiles& files,
    const fs::path& cgroup,
    MemoryLimits& limits) {
  const fs::path mount = root / files.mount;
  for (fs::path at = cgroup.relative_path(); !at.empty();
       at = at.parent_path()) {
    apply_cgroup_folder(mount / at, files, limits);
  }
  apply_cgroup_folder(mount, files, limits);
}

/** Bytes that RLIMIT_AS still lets this process map. */
std::optional<std::uint64_t> address_space_left() {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return std::nullopt;
  }
  const std::uint64_t pages = number_after("/proc/self/statm", "").value_or(0);
  const std::uint64_t mapped =
      pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return saturated_sub(limit.rlim_cur, mapped);
}

/** Gives back what the heap keeps of memory that was let go. */
void trim_heap() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

std::string cpu_name() {
  const auto name = line_after("/proc/cpuinfo", "model name");
  if (!name) {
    return "unknown"; // not Linux, or an ARM kernel, which prints no name
  }
  return name->substr(std::min(name->find_first_not_of("\t :"), name->size()));
}

} // namespace

MemoryLimits read_memory_limits(const fs::path& root) {
  constexpr std::uint64_t kKib = 1024;
  MemoryLimits limits;
  const fs::path meminfo = root / "proc/meminfo";
  if (const auto kib = number_after(meminfo, "MemTotal:")) {
    limits.total = *kib * kKib;
  }
  if (const auto kib = number_after(meminfo, "MemAvailable:")) {
    limits.available = *kib * kKib;
  }
  // Lines are "id:controllers:path"; version 2 has id 0 and no controllers.
  std::ifstream in(root / "proc/self/cgroup");
  std::string line;
  while (std::getline(in, line)) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) {
      continue;
    }
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path cgroup = line.substr(second + 1);
    if (controllers.empty()) {
      apply_cgroup(root, kCgroupV2, cgroup, limits);
    } else if (
        ("," + controllers + ",").find(",memory,") != std::string::npos) {
      apply_cgroup(root, kCgroupV1, cgroup, limits);
    }
  }
  return limits;
}

int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) {
    return std::max(1, CPU_COUNT(&set));
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

SystemInfo system_info() {
  MemoryLimits limits = read_memory_limits("/");
  if (!limits.total) { // no /proc: ask POSIX
    limits.total = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
        static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  }
  lower(limits.available, limits.total);
  lower(limits.available, address_space_left());
  lower(limits.available, RamLimit::left());
  return {
      .cpu = cpu_name(),
      .cores = usable_cores(),
      .total_ram_bytes = *limits.total,
      .available_ram_bytes = *limits.available};
}

std::uint64_t peak_rss_bytes() {
  // Preferred to getrusage, whose peak a child inherits over exec on Linux.
  if (const auto kib = number_after("/proc/self/status", "VmHWM:")) {
    return *kib * 1024;
  }
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss); // bytes on macOS
}

std::optional<ResidentMemory> resident_memory() {
#ifdef __linux__
  // Sizes in pages: all, what is in memory, of that what files have.
  std::ifstream in("/proc/self/statm");
  std::uint64_t all = 0;
  std::uint64_t resident = 0;
  std::uint64_t file = 0;
  if (in >> all >> resident >> file) {
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    return ResidentMemory{saturated_sub(resident, file) * page, file * page};
  }
#endif
  return std::nullopt;
}

void require_ram(std::uint64_t needed, const std::string& what) {
  std::uint64_t available = system_info().available_ram_bytes;
  if (needed > available && RamLimit::left()) {
    trim_heap();
    available = system_info().available_ram_bytes;
  }
  if (needed > available) {
    constexpr double kMib = 1 << 20;
    fail(
        ErrorKind::Exhausted,
        "[require_ram] {}: needs {:.0f} MiB of memory, {:.0f} MiB are "
        "available. Close other programs, raise the limit, or ask for less",
        what,
        static_cast<double>(needed) / kMib,
        static_cast<double>(available) / kMib);
  }
}

std::uint64_t allow_open_files(std::uint64_t n) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < n) {
    rlimit raised = limit;
    raised.rlim_cur = std::min<rlim_t>(n, limit.rlim_max);
    if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) {
      limit = raised;
    }
  }
  return limit.rlim_cur;
}

void share_one_heap() {
#if defined(__GLIBC__)
  ::mallopt(M_ARENA_MAX, 1);
#endif
}

} // namespace optiq
