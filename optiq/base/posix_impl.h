#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "optiq/base/error.h"

/** What the sources of this room that call the system for files share. */
namespace optiq {

ErrorKind kind_of_errno(int code);

/** "[function] path: cannot <action>: <the system's words>", of the kind that
 * the code stands for. */
[[noreturn]] void fail_errno(
    const char* function,
    const std::filesystem::path& path,
    const char* action,
    int code);

/** A file descriptor that closes itself. */
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const {
    return fd_;
  }

 private:
  int fd_;
};

/** Does not wait for the writer of a pipe. Throws as fail_errno. */
int open_for_reading(const char* function, const std::filesystem::path& path);

/** Writes all of it, also to a pipe that does not block; 0 or an errno. */
int write_all(int fd, std::span<const std::byte> bytes);

/** fsync of a file or a folder. */
void sync_path(const char* function, const std::filesystem::path& path);

/** The folder that holds path: "." of a bare name. */
std::filesystem::path parent_of(const std::filesystem::path& path);

/** Also of a link that leads nowhere, and of what cannot be looked at. */
bool exists_at_all(const std::filesystem::path& path);

} // namespace optiq
