#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <optional>

#include <unistd.h>

#include "optiq/base/temporary_name_impl.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;

/** The process id in a name "<prefix><pid>-<n>", if it is such a name. */
std::optional<pid_t> pid_in_name(
    const std::string& name,
    const std::string& prefix) {
  if (!name.starts_with(prefix)) {
    return std::nullopt;
  }
  pid_t pid = 0;
  const char* end = name.data() + name.size();
  const auto [next, error] =
      std::from_chars(name.data() + prefix.size(), end, pid);
  if (error != std::errc() || next == end || *next != '-' || pid <= 0) {
    return std::nullopt;
  }
  return pid;
}

bool is_alive(pid_t pid) {
  return ::kill(pid, 0) == 0 || errno == EPERM;
}

} // namespace

std::string temporary_prefix(const fs::path& file) {
  return "." + file.filename().string() + ".tmp-";
}

std::string unique_name(const std::string& prefix) {
  static std::atomic<unsigned> counter{0};
  return prefix + std::to_string(::getpid()) + "-" +
      std::to_string(counter.fetch_add(1));
}

std::vector<fs::path> leftovers(
    const fs::path& folder,
    const std::string& prefix) {
  std::vector<fs::path> found;
  std::error_code ignored; // an unreadable folder has no leftovers to remove
  for (const fs::directory_entry& entry :
       fs::directory_iterator(folder, ignored)) {
    const auto pid = pid_in_name(entry.path().filename().string(), prefix);
    if (pid && !is_alive(*pid)) {
      found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

} // namespace optiq
