#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

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
  void finish();

 private:
  std::filesystem::path path_;
  std::uint64_t expected_bytes_;
  int fd_ = -1;
};

/** Writes a temporary sibling, fsyncs it, renames it over path, fsyncs the
 * folder. Throws Io or Denied; on failure nothing is left behind. */
void write_file_atomically(
    const std::filesystem::path& path,
    std::string_view content);

} // namespace optiq
