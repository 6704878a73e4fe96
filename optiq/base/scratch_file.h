#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace optiq {

/** Bytes that memory has no room for, on the disk until this is gone: the file
 * has no name, so that nothing of it is left behind by a process that dies. */
class ScratchFile {
 public:
  /** In a folder, which is made where it is missing. Throws Denied or Io. */
  explicit ScratchFile(const std::filesystem::path& folder);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  /** Where the bytes begin. Throws Exhausted for a full disk, Io. */
  std::uint64_t append(std::span<const std::byte> bytes);
  /** More of the file as writable memory, from the begin of a page on; zeros
   * before it is written. The file stays for as long as it is held, its part of
   * the disk is free then. Throws Exhausted for a full disk or address space.
   */
  static std::shared_ptr<std::byte[]> map_more(
      std::shared_ptr<ScratchFile> file,
      std::size_t bytes);
  /** Bytes that were appended. Throws Io. */
  void read(std::uint64_t offset, std::span<std::byte> bytes) const;

 private:
  std::filesystem::path folder_; // of messages
  int fd_;
  std::uint64_t size_ = 0;
};

} // namespace optiq
