#include "optiq/base/scratch_file.h"

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/posix_impl.h"
#include "optiq/base/temporary_name_impl.h"

namespace optiq {
namespace {

constexpr const char* kFunction = "ScratchFile";

} // namespace

ScratchFile::ScratchFile(const std::filesystem::path& folder)
    : folder_(folder) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) {
    fail_errno(kFunction, folder, "be made", failed.value());
  }
  const std::filesystem::path path = folder / unique_name(".scratch-");
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd_ < 0) {
    fail_errno(kFunction, path, "be made", errno);
  }
  ::unlink(path.c_str());
}

ScratchFile::~ScratchFile() {
  ::close(fd_);
}

std::uint64_t ScratchFile::append(std::span<const std::byte> bytes) {
  const std::uint64_t offset = size_;
  while (!bytes.empty()) {
    const ssize_t n =
        ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(size_));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      fail_errno(kFunction, folder_, "be written", errno);
    }
    size_ += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return offset;
}

void ScratchFile::read(std::uint64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t n =
        ::pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      fail_errno(kFunction, folder_, "be read back", n < 0 ? errno : EIO);
    }
    offset += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

} // namespace optiq
