#include "optiq/base/file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "optiq/base/error.h"

namespace optiq {
namespace {

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

[[noreturn]] void fail_errno(
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

/** A file descriptor that closes itself. */
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const {
    return fd_;
  }

 private:
  int fd_;
};

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

// O_NONBLOCK: opening a FIFO must not hang; it has no effect on regular files.
int open_for_reading(const char* function, const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    fail_errno(function, path, "open", errno);
  }
  return fd;
}

void sync_path(const char* function, const fs::path& path) {
  const Descriptor fd(open_for_reading(function, path));
  if (::fsync(fd.get()) != 0) {
    fail_errno(function, path, "flush to disk", errno);
  }
}

void sync_tree(const char* function, const fs::path& root) {
  for (const fs::directory_entry& entry :
       fs::recursive_directory_iterator(root)) {
    if (!entry.is_symlink()) {
      sync_path(function, entry.path());
    }
  }
  sync_path(function, root);
}

fs::path parent_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

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

/** Siblings "<prefix><pid>-<n>" whose process is another one and is gone. */
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

/** "<prefix><pid>-<n>", different on every call. */
std::string unique_name(const std::string& prefix) {
  static std::atomic<unsigned> counter{0};
  return prefix + std::to_string(::getpid()) + "-" +
      std::to_string(counter.fetch_add(1));
}

std::string temporary_prefix(const fs::path& path) {
  return "." + path.filename().string() + ".tmp-";
}

std::string staging_prefix(const fs::path& target) {
  return "." + target.filename().string() + ".staging-";
}

std::string replaced_prefix(const fs::path& target) {
  return "." + target.filename().string() + ".replaced-";
}

bool exists_at_all(const fs::path& path) {
  return fs::exists(fs::symlink_status(path));
}

/** Locks a staging folder; -1 when somebody else holds the lock. */
int lock_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    return -1;
  }
  // A file system without locks leaves the process id as the only witness.
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(fd);
    return -1;
  }
  return fd;
}

void remove_dead_staging(const fs::path& target) {
  for (const fs::path& old :
       leftovers(parent_of(target), staging_prefix(target))) {
    // The lock also protects makers that another container's process table
    // does not show.
    const Descriptor lock(lock_folder(old));
    std::error_code ignored; // what stays is tried again the next time
    if (lock.get() >= 0) {
      fs::remove_all(old, ignored);
    }
  }
}

/** Undoes or completes a replacement that a kill interrupted. */
void settle_replaced(const fs::path& target) {
  for (const fs::path& old :
       leftovers(parent_of(target), replaced_prefix(target))) {
    std::error_code ignored; // what stays is tried again the next time
    if (exists_at_all(target)) {
      fs::remove_all(old, ignored);
    } else {
      fs::rename(old, target, ignored);
    }
  }
}

void refuse_existing(const fs::path& target) {
  if (exists_at_all(target)) {
    fail(
        ErrorKind::InvalidInput,
        "[StagedDirectory] {}: already exists, expected a new path. Choose "
        "another one, or allow it to be replaced (--overwrite)",
        target.string());
  }
}

} // namespace

// --- MappedFile -------------------------------------------------------------

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path) {
  const auto file = InputFile::open(path);
  return file->map(0, file->size());
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
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
  while (!bytes.empty()) {
    // Linux writes at most 2^31 - 4096 bytes a call, macOS refuses 2^31.
    const std::size_t n = std::min<std::size_t>(bytes.size(), 1u << 30);
    const ssize_t written = ::write(fd_, bytes.data(), n);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0 && kind_of_errno(errno) == ErrorKind::Exhausted) {
      const int code = errno;
      fail(
          ErrorKind::Exhausted,
          "[OutputFile::write] {}: {}; the file needs {} bytes. Free some "
          "space or write to another disk",
          path_.string(),
          std::generic_category().message(code),
          expected_bytes_);
    }
    if (written < 0) {
      fail_errno("OutputFile::write", path_, "write", errno);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void OutputFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void OutputFile::finish() {
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
  file.write(content);
  file.finish();
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int code = errno;
    ::unlink(temporary.c_str());
    fail_errno("write_file_atomically", path, "rename into place", code);
  }
  sync_path("write_file_atomically", folder);
}

// --- StagedDirectory --------------------------------------------------------

StagedDirectory::StagedDirectory(const fs::path& target, bool replace)
    : target_(fs::absolute(target).lexically_normal()), replace_(replace) {
  if (!target_.has_filename()) {
    target_ = target_.parent_path(); // "out/" is "out"
  }
  const fs::path parent = parent_of(target_);
  std::error_code error;
  fs::create_directories(parent, error);
  if (error) {
    fail_errno("StagedDirectory", parent, "create", error.value());
  }
  settle_replaced(target_);
  remove_dead_staging(target_);
  if (!replace_) {
    refuse_existing(target_);
  }
  do {
    staging_ = parent / unique_name(staging_prefix(target_));
  } while (exists_at_all(staging_));
  if (::mkdir(staging_.c_str(), 0777) != 0) {
    fail_errno("StagedDirectory", staging_, "create", errno);
  }
  lock_fd_ = lock_folder(staging_);
}

StagedDirectory::~StagedDirectory() {
  if (!published_) {
    std::error_code ignored; // the next StagedDirectory removes what stays
    fs::remove_all(staging_, ignored);
  }
  if (lock_fd_ >= 0) {
    ::close(lock_fd_);
  }
}

void StagedDirectory::publish() {
  sync_tree("StagedDirectory::publish", staging_);
  fs::path aside;
  if (exists_at_all(target_)) {
    if (!replace_) {
      refuse_existing(target_);
    }
    aside = parent_of(target_) / unique_name(replaced_prefix(target_));
    if (::rename(target_.c_str(), aside.c_str()) != 0) {
      fail_errno("StagedDirectory::publish", target_, "move aside", errno);
    }
  }
  if (::rename(staging_.c_str(), target_.c_str()) != 0) {
    const int code = errno;
    if (!aside.empty() && ::rename(aside.c_str(), target_.c_str()) != 0) {
      fail(
          ErrorKind::Io,
          "[StagedDirectory::publish] {}: could not be put back; its content "
          "is in {}",
          target_.string(),
          aside.string());
    }
    fail_errno("StagedDirectory::publish", target_, "rename into place", code);
  }
  published_ = true;
  sync_path("StagedDirectory::publish", parent_of(target_));
  if (!aside.empty()) {
    std::error_code error;
    fs::remove_all(aside, error);
    if (error) {
      fail_errno(
          "StagedDirectory::publish", aside, "remove the old", error.value());
    }
  }
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
