#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "optiq/base/rename_impl.h"
#if defined(__linux__)
#include <linux/fs.h>
#include <sys/syscall.h>
#else
#include <stdio.h>
#endif

namespace optiq {
namespace {

#if defined(__linux__)
constexpr unsigned kToNew = RENAME_NOREPLACE;
constexpr unsigned kExchange = RENAME_EXCHANGE;

// The system call itself: a C library may be older than it.
int rename_with(
    int folder,
    const std::string& from,
    const std::string& to,
    unsigned flags) {
  const long result =
      ::syscall(SYS_renameat2, folder, from.c_str(), folder, to.c_str(), flags);
  return result == 0 ? 0 : errno;
}
#else
// macOS; not run so far.
constexpr unsigned kToNew = RENAME_EXCL;
constexpr unsigned kExchange = RENAME_SWAP;

int rename_with(
    int folder,
    const std::string& from,
    const std::string& to,
    unsigned flags) {
  return ::renameatx_np(folder, from.c_str(), folder, to.c_str(), flags) == 0
      ? 0
      : errno;
}
#endif

/** An old kernel, or a file system (NFS, FUSE) without the flags. */
bool is_unsupported(int code) {
  return code == EINVAL || code == ENOSYS || code == ENOTSUP ||
      code == EOPNOTSUPP;
}

} // namespace

int rename_to_new(int folder, const std::string& from, const std::string& to) {
  const int code = rename_with(folder, from, to, kToNew);
  if (!is_unsupported(code)) {
    return code;
  }
  struct stat status {};
  if (::fstatat(folder, to.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
    return EEXIST;
  }
  // What appears now is safe all the same: a folder takes the place of an
  // empty folder only, of anything else the system refuses.
  return ::renameat(folder, from.c_str(), folder, to.c_str()) == 0 ? 0 : errno;
}

int exchange_names(int folder, const std::string& a, const std::string& b) {
  const int code = rename_with(folder, a, b, kExchange);
  return is_unsupported(code) ? ENOTSUP : code;
}

} // namespace optiq
