#include "optiq/base/file.h"

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/mapping_guard_impl.h"
#include "optiq/base/posix_impl.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;

struct stat
regular_file_status(const char* function, const fs::path& path, int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    fail_errno(function, path, "read its size", errno);
  }
  if (!S_ISREG(status.st_mode)) {
    fail(
        ErrorKind::Io,
        "[{}] {}: found {}, expected a regular file",
        function,
        path.string(),
        S_ISDIR(status.st_mode) ? "a directory" : "a special file");
  }
  return status;
}

} // namespace

// --- MappedFile -------------------------------------------------------------

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path) {
  const auto file = InputFile::open(path);
  return file->map(0, file->size());
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    unregister_mapping(slot_);
    ::munmap(const_cast<std::byte*>(data_) - before_, before_ + size_);
  }
}

void MappedFile::drop_pages(std::size_t offset, std::size_t n) const {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t size = before_ + size_;
  const std::size_t first = offset == 0 ? 0 : before_ + offset;
  const std::size_t stop = std::min(size, before_ + offset + n);
  // Only whole pages inside the range: neighbours may still be in use. The
  // first and the last page of the mapping have no neighbour outside.
  const std::size_t begin = (first + page - 1) / page * page;
  const std::size_t end = stop == size ? size : stop / page * page;
  if (begin < end) {
    auto* start = const_cast<std::byte*>(data_) - before_ + begin;
    // Advice only: a kernel that refuses it changes no result.
    ::madvise(start, end - begin, MADV_DONTNEED);
  }
}

// --- InputFile --------------------------------------------------------------

std::shared_ptr<const InputFile> InputFile::open(const fs::path& path) {
  std::shared_ptr<InputFile> file(new InputFile);
  file->path_ = path;
  file->fd_ = open_for_reading("InputFile::open", path);
  file->size_ = static_cast<std::uint64_t>(
      regular_file_status("InputFile::open", path, file->fd_).st_size);
  return file;
}

InputFile::~InputFile() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

void InputFile::read(std::uint64_t offset, std::span<std::byte> into) const {
  while (!into.empty()) {
    const ssize_t n =
        ::pread(fd_, into.data(), into.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      fail_errno("InputFile::read", path_, "read", errno);
    }
    if (n == 0) {
      fail(
          ErrorKind::Io,
          "[InputFile::read] {}: ends at byte {}, it had {} when it was "
          "opened. Is somebody writing it?",
          path_.string(),
          offset,
          size_);
    }
    offset += static_cast<std::uint64_t>(n);
    into = into.subspan(static_cast<std::size_t>(n));
  }
}

std::shared_ptr<const MappedFile> InputFile::map(
    std::uint64_t offset,
    std::size_t n) const {
  std::shared_ptr<MappedFile> piece(new MappedFile);
  piece->path_ = path_;
  if (n == 0) {
    return piece;
  }
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t before = offset % page;
  void* data = ::mmap(
      nullptr,
      before + n,
      PROT_READ,
      MAP_PRIVATE,
      fd_,
      static_cast<off_t>(offset - before));
  if (data == MAP_FAILED && errno == ENOMEM) {
    fail(
        ErrorKind::Exhausted,
        "[InputFile::map] {}: cannot map {} bytes: the address space (ulimit "
        "-v) or the number of mappings is used up",
        path_.string(),
        n);
  }
  if (data == MAP_FAILED) {
    fail_errno("InputFile::map", path_, "map into memory", errno);
  }
  piece->data_ = static_cast<const std::byte*>(data) + before;
  piece->size_ = n;
  piece->before_ = before;
  piece->slot_ = register_mapping({piece->data_ - before, before + n}, path_);
  return piece;
}

// --- whole files ------------------------------------------------------------

std::string read_text_file(const fs::path& path, std::size_t max_bytes) {
  const Descriptor fd(open_for_reading("read_text_file", path));
  const struct stat status =
      regular_file_status("read_text_file", path, fd.get());
  if (static_cast<std::uint64_t>(status.st_size) > max_bytes) {
    fail(
        ErrorKind::InvalidInput,
        "[read_text_file] {}: found {} bytes, expected at most {}",
        path.string(),
        status.st_size,
        max_bytes);
  }
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::read(fd.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      fail_errno("read_text_file", path, "read", errno);
    }
    if (n == 0) {
      text.resize(done); // truncated by somebody while it was read
      break;
    }
    done += static_cast<std::size_t>(n);
  }
  return text;
}

std::uint64_t free_disk_bytes(const fs::path& path) {
  fs::path at = fs::absolute(path);
  std::error_code ignored; // an unreadable path: its parent answers
  while (!fs::exists(at, ignored) && at != at.root_path()) {
    at = at.parent_path();
  }
  struct statvfs status {};
  if (::statvfs(at.c_str(), &status) != 0) {
    fail_errno("free_disk_bytes", at, "read the free space", errno);
  }
  return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

} // namespace optiq
