#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace optiq {

struct MappingSlot;

/** A read-only mapping of a regular file, or of a piece of one. See
 * base/mapping_guard.h for files that become shorter meanwhile. */
class MappedFile {
 public:
  /** The whole file; an empty one maps to size 0. Throws NotFound, Denied, Io,
   * or Exhausted (address space), naming the path. */
  static std::shared_ptr<const MappedFile> open(
      const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const {
    return {data_, size_};
  }
  const std::filesystem::path& path() const {
    return path_;
  }
  /** Tells the kernel that bytes [offset, offset + n) of the mapping will not
   * be read again. */
  void drop_pages(std::size_t offset, std::size_t n) const;

 private:
  friend class InputFile;
  MappedFile() = default;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t before_ = 0; // mapped bytes in front of data_: pages are whole
  MappingSlot* slot_ = nullptr;
  std::filesystem::path path_;
};

/** An open regular file, read and mapped piece by piece: a file larger than
 * the address space can be gone through. */
class InputFile {
 public:
  /** Throws NotFound, Denied or Io, naming the path. */
  static std::shared_ptr<const InputFile> open(
      const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  std::uint64_t size() const {
    return size_;
  }
  const std::filesystem::path& path() const {
    return path_;
  }
  /** Fills `into` from `offset` on, all of it inside the file. Throws Io, also
   * when the file has become shorter. */
  void read(std::uint64_t offset, std::span<std::byte> into) const;
  /** [offset, offset + n), inside the file, for as long as it is held. Throws
   * Exhausted (address space) with the bytes, Io. */
  std::shared_ptr<const MappedFile> map(std::uint64_t offset, std::size_t n)
      const;

 private:
  InputFile() = default;
  int fd_ = -1;
  std::uint64_t size_ = 0;
  std::filesystem::path path_;
};

/** Whole content of a file; refuses more than max_bytes (InvalidInput). */
std::string read_text_file(
    const std::filesystem::path& path,
    std::size_t max_bytes);

/** Free bytes on the file system that holds path (or its nearest parent). */
std::uint64_t free_disk_bytes(const std::filesystem::path& path);

} // namespace optiq
