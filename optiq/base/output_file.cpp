#include "optiq/base/output_file.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/mapping_guard.h"
#include "optiq/base/mapping_guard_impl.h"
#include "optiq/base/output_path.h"
#include "optiq/base/posix_impl.h"
#include "optiq/base/temporary_name_impl.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNamed = "write_named_file";

[[noreturn]] void
fail_write(const fs::path& path, int code, std::uint64_t expected_bytes) {
  if (kind_of_errno(code) == ErrorKind::Exhausted) {
    fail(
        ErrorKind::Exhausted,
        "[OutputFile::write] {}: {}; the file needs {} bytes. Free some space "
        "or write to another disk",
        path.string(),
        std::generic_category().message(code),
        expected_bytes);
  }
  fail_errno("OutputFile::write", path, "write", code);
}

/** Writes beside `path` and renames; the new file looks like `replaced`. */
void replace_file(
    const fs::path& path,
    std::string_view content,
    const struct stat* replaced) {
  const fs::path folder = parent_of(path);
  const std::string prefix = temporary_prefix(path);
  for (const fs::path& old : leftovers(folder, prefix)) {
    std::error_code ignored; // what stays is tried again the next time
    fs::remove(old, ignored);
  }
  fs::path temporary;
  do {
    temporary = folder / unique_name(prefix);
  } while (exists_at_all(temporary));
  OutputFile file(temporary, content.size());
  if (replaced != nullptr) {
    file.look_like(*replaced);
  }
  file.write(content);
  file.finish();
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int code = errno;
    ::unlink(temporary.c_str());
    fail_errno("write_file_atomically", path, "rename into place", code);
  }
  sync_path("write_file_atomically", folder);
}

/** The n of "/dev/fd/<n>" and of links to it. */
std::optional<int> open_descriptor(const fs::path& named) {
  std::error_code error;
  const fs::path descriptors = fs::canonical("/dev/fd", error);
  fs::path path = named;
  // One link after the other: what /dev/fd/<n> leads to may be a file, which
  // is to be written on where it is, not replaced.
  for (int i = 0; i < 8 && !error; ++i) {
    const fs::path folder = fs::canonical(parent_of(path), error);
    const std::string name = path.filename().string();
    int fd = -1;
    const char* end = name.data() + name.size();
    if (!error && folder == descriptors &&
        std::from_chars(name.data(), end, fd).ptr == end && fd >= 0) {
      return fd;
    }
    const fs::path goal = fs::read_symlink(folder / name, error);
    path = folder / goal;
  }
  return std::nullopt;
}

void write_through(const fs::path& named, int fd, std::string_view content) {
  if (fd < 0) {
    fail_errno(kNamed, named, "open", errno);
  }
  const Descriptor open(fd);
  const int code = write_all(open.get(), std::as_bytes(std::span(content)));
  if (code != 0) {
    fail_write(named, code, content.size());
  }
}

[[noreturn]] void refuse(const fs::path& named, const char* found) {
  fail(
      ErrorKind::InvalidInput,
      "[{}] {}: found {}, expected a file to write. Choose another name",
      kNamed,
      named.string(),
      found);
}

} // namespace

OutputFile::OutputFile(fs::path path, std::uint64_t expected_bytes)
    : path_(std::move(path)), expected_bytes_(expected_bytes) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) {
    fail_errno("OutputFile", path_, "create", errno);
  }
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(path_.c_str());
  }
}

void OutputFile::write(std::span<const std::byte> bytes) {
  const int code = write_all(fd_, bytes);
  if (code == EFAULT) {
    fail_if_mapped(bytes);
  }
  if (code != 0) {
    fail_write(path_, code, expected_bytes_);
  }
}

void OutputFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void OutputFile::look_like(const struct stat& other) {
  // A file of somebody else runs with nobody's rights: chown drops set-id bits,
  // and where it is refused they must not be given.
  const bool owned = ::fchown(fd_, other.st_uid, other.st_gid) == 0;
  const mode_t mask = owned ? 07777 : 0777;
  if (::fchmod(fd_, other.st_mode & mask) != 0) {
    fail_errno("OutputFile", path_, "set its mode", errno);
  }
}

void OutputFile::finish() {
  check_mappings();
  if (::fsync(fd_) != 0) {
    fail_errno("OutputFile::finish", path_, "flush to disk", errno);
  }
  const int fd = std::exchange(fd_, -1);
  if (::close(fd) != 0) {
    const int code = errno;
    ::unlink(path_.c_str());
    fail_errno("OutputFile::finish", path_, "close", code);
  }
}

void write_file_atomically(const fs::path& path, std::string_view content) {
  replace_file(path, content, nullptr);
}

void write_named_file(const fs::path& named, std::string_view content) {
  check_mappings();
  if (const auto fd = open_descriptor(named)) {
    write_through(named, ::fcntl(*fd, F_DUPFD_CLOEXEC, 0), content);
    return;
  }
  const fs::path path = resolve_output(named);
  const fs::path name = named.filename();
  if (name.empty() || name == "." || name == "..") {
    refuse(named, "the name of a folder");
  }
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    if (errno != ENOENT) {
      fail_errno(kNamed, path, "look at it", errno);
    }
    replace_file(path, content, nullptr);
  } else if (S_ISDIR(status.st_mode)) {
    refuse(named, "a folder");
  } else if (S_ISBLK(status.st_mode)) {
    refuse(named, "a disk");
  } else if (!S_ISREG(status.st_mode)) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC);
    write_through(named, fd, content);
  } else if (::access(path.c_str(), W_OK) != 0) {
    fail_errno(kNamed, path, "write", errno);
  } else {
    replace_file(path, content, &status);
  }
}

} // namespace optiq
