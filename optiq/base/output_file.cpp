#include "optiq/base/output_file.h"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/mapping_guard.h"
#include "optiq/base/mapping_guard_impl.h"
#include "optiq/base/posix_impl.h"
#include "optiq/base/temporary_name_impl.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;

std::string temporary_prefix(const fs::path& path) {
  return "." + path.filename().string() + ".tmp-";
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
    if (written < 0 && errno == EFAULT) {
      fail_if_mapped(bytes);
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

} // namespace optiq
