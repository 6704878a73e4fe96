#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

struct stat;

namespace optiq {

/**
 * A new file written front to back. `finish` fsyncs and closes it, after
 * check_mappings: nothing is finished of what was read from a file that changed
 * under us. A file that was not finished is removed by the destructor. Every
 * failure names the path; a full disk is Exhausted and says how many bytes the
 * whole file needs.
 */
class OutputFile {
 public:
  /** Refuses an existing path. `expected_bytes` is for the messages only. */
  OutputFile(std::filesystem::path path, std::uint64_t expected_bytes);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /** Gives it the mode of `other` and, if this user may, the owner. */
  void look_like(const struct stat& other);
  void finish();

 private:
  std::filesystem::path path_;
  std::uint64_t expected_bytes_;
  int fd_ = -1;
};

/** Writes a temporary sibling, fsyncs it, renames it over path, fsyncs the
 * folder. For files of ours: a link would be replaced. Throws Io or Denied; on
 * failure nothing is left behind. */
void write_file_atomically(
    const std::filesystem::path& path,
    std::string_view content);

/**
 * Writes to a path that the user named, as a shell's ">" would, but a file is
 * replaced as by write_file_atomically: links are followed, mode and owner of
 * an existing file stay. Character devices, pipes and open descriptors
 * (/dev/fd/3, and links to one) get the bytes themselves. Throws InvalidInput
 * (an empty path, a folder, a disk), NotFound, Denied, Exhausted, Io.
 */
void write_named_file(
    const std::filesystem::path& named,
    std::string_view content);

} // namespace optiq
