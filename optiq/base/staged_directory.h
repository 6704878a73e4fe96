#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "optiq/base/folder_kind.h"

namespace optiq {

struct FolderEntry;

/** What a folder is written for; from it follows what must not be its place. */
struct StagedOptions {
  FolderKind kind;
  bool replace = false; // an existing folder of this kind
  /** File or folder that the content is made from: the target may not be it,
   * hold it, or lie in it, other than at place_in_source (none if empty). */
  std::filesystem::path source;
  std::filesystem::path place_in_source;
};

/**
 * A folder that becomes visible under its final name only when complete. Made
 * beside its target, whose path is resolved once and checked. With `replace`,
 * an existing folder of the kind is listed; `publish` takes its place if it is
 * still as it was listed, in one step where the system can, and then deletes
 * exactly what was listed. The root, a mount point, the home and the working
 * folder, and what holds one of them, are never replaced. Unpublished folders
 * are removed by the destructor, those of killed processes by the next
 * StagedDirectory for the same target; a target that a killed process had moved
 * aside and not yet replaced is moved back.
 */
class StagedDirectory {
 public:
  /** Makes missing parents. Throws InvalidInput when the target exists and
   * `replace` is false, or it may not be replaced; NotFound, Denied, Io. */
  StagedDirectory(
      const std::filesystem::path& named,
      const StagedOptions& options);
  ~StagedDirectory();
  StagedDirectory(const StagedDirectory&) = delete;
  StagedDirectory& operator=(const StagedDirectory&) = delete;

  /** Where to write. */
  const std::filesystem::path& path() const {
    return staging_;
  }
  /** Flushes everything to the disk and gives the folder its name. Throws
   * InvalidInput when the target has changed, Denied, Io; the target is then
   * as it was, or the message says where it is. */
  void publish();

 private:
  void begin(bool replace);
  void make_parents();
  void make_staging();
  void discard();
  void take_new_name();
  void replace_listed();
  void require_unchanged(const std::filesystem::path& folder) const;
  std::string swap_in();
  void swap_back(const std::string& old);

  FolderKind kind_;
  std::filesystem::path target_; // resolved
  std::filesystem::path staging_;
  std::vector<std::filesystem::path> made_parents_;
  std::vector<FolderEntry> listing_; // of the target; empty: there was none
  int parent_fd_ = -1; // the folder of target_ and staging_
  int lock_fd_ = -1; // flock on staging_: says that its maker lives
  bool published_ = false; // staging_ is no longer the name of what we made
};

} // namespace optiq
