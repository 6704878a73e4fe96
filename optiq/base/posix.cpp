#include <algorithm>
#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "optiq/base/posix_impl.h"

namespace optiq {

namespace fs = std::filesystem;

ErrorKind kind_of_errno(int code) {
  switch (code) {
    case ENOENT:
    case ENOTDIR:
      return ErrorKind::NotFound;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorKind::Denied;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return ErrorKind::Exhausted;
    default:
      return ErrorKind::Io;
  }
}

void fail_errno(
    const char* function,
    const fs::path& path,
    const char* action,
    int code) {
  fail(
      kind_of_errno(code),
      "[{}] {}: cannot {}: {}",
      function,
      path.string(),
      action,
      std::generic_category().message(code));
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

// O_NONBLOCK: opening a FIFO must not hang; it has no effect on regular files.
int open_for_reading(const char* function, const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    fail_errno(function, path, "open", errno);
  }
  return fd;
}

int write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    // Linux writes at most 2^31 - 4096 bytes a call, macOS refuses 2^31.
    const std::size_t n = std::min<std::size_t>(bytes.size(), 1u << 30);
    const ssize_t written = ::write(fd, bytes.data(), n);
    if (written >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      struct pollfd ready {
        .fd = fd, .events = POLLOUT, .revents = 0
      };
      ::poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

void sync_path(const char* function, const fs::path& path) {
  const Descriptor fd(open_for_reading(function, path));
  if (::fsync(fd.get()) != 0) {
    fail_errno(function, path, "flush to disk", errno);
  }
}

fs::path parent_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

bool exists_at_all(const fs::path& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 ||
      (errno != ENOENT && errno != ENOTDIR);
}

} // namespace optiq
