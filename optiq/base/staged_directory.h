#pragma once

#include <filesystem>

namespace optiq {

/**
 * A folder that becomes visible under its final name only when complete. Made
 * beside `target`; `publish` fsyncs files and folder and renames it. With
 * `replace`, an existing target is first moved aside and deleted only after
 * the rename. Unpublished folders are removed by the destructor, those of
 * killed processes by the next StagedDirectory for the same target; a target
 * that a killed process had moved aside and not yet replaced is moved back.
 */
class StagedDirectory {
 public:
  /** Makes missing parents. Throws InvalidInput when the target exists and
   * `replace` is false, Denied, Io. */
  StagedDirectory(const std::filesystem::path& target, bool replace);
  ~StagedDirectory();
  StagedDirectory(const StagedDirectory&) = delete;
  StagedDirectory& operator=(const StagedDirectory&) = delete;

  const std::filesystem::path& path() const {
    return staging_;
  }
  void publish();

 private:
  std::filesystem::path target_;
  std::filesystem::path staging_;
  int lock_fd_ = -1; // flock on staging_: says that its maker lives
  bool replace_;
  bool published_ = false;
};

} // namespace optiq
