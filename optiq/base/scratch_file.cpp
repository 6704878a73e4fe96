#include "optiq/base/scratch_file.h"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/mapping_guard_impl.h"
#include "optiq/base/posix_impl.h"
#include "optiq/base/temporary_name_impl.h"

namespace optiq {
namespace {

constexpr const char* kFunction = "ScratchFile";

/** Makes a file longer by bytes that have their place on the disk: a page that
 * finds none as it is written ends the process. 0 or an errno. */
int make_longer(int fd, std::uint64_t size, std::size_t bytes) {
#ifdef __linux__
  return ::posix_fallocate(
      fd, static_cast<off_t>(size), static_cast<off_t>(bytes));
#else
  return ::ftruncate(fd, static_cast<off_t>(size + bytes)) == 0 ? 0 : errno;
#endif
}

/** Gives a part of a file's disk back. */
void punch_hole(int fd, std::uint64_t offset, std::size_t bytes) {
#ifdef __linux__
  // Advice: what stays goes with the file.
  (void)::fallocate(
      fd,
      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
      static_cast<off_t>(offset),
      static_cast<off_t>(bytes));
#endif
}

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

std::shared_ptr<std::byte[]> ScratchFile::map_more(
    std::shared_ptr<ScratchFile> file,
    std::size_t bytes) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t offset = (file->size_ + page - 1) / page * page;
  if (const int failed = make_longer(file->fd_, offset, bytes)) {
    fail_errno(kFunction, file->folder_, "be written", failed);
  }
  file->size_ = offset + bytes;
  void* const memory = ::mmap(
      nullptr,
      bytes,
      PROT_READ | PROT_WRITE,
      MAP_SHARED,
      file->fd_,
      static_cast<off_t>(offset));
  if (memory == MAP_FAILED) {
    fail_errno(kFunction, file->folder_, "be mapped into memory", errno);
  }
  auto* const first = static_cast<std::byte*>(memory);
  MappingSlot* const slot = register_mapping({first, bytes}, file->folder_);
  return {first, [file = std::move(file), offset, bytes, slot](std::byte* p) {
            unregister_mapping(slot);
            ::munmap(p, bytes);
            punch_hole(file->fd_, offset, bytes);
          }};
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
