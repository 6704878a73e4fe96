#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <sys/types.h>

#include "optiq/base/folder_kind.h"

namespace optiq {

/** One entry of a folder as it was found; a link is not followed. */
struct FolderEntry {
  std::string path; // below the folder; empty: the folder itself
  bool is_folder = false;
  dev_t device = 0;
  ino_t inode = 0;
  std::int64_t bytes = 0; // bytes and time of files only
  std::int64_t modified_ns = 0;

  bool operator==(const FolderEntry&) const = default;
};

/** Everything in a folder: itself first, a folder before what lies in it. */
using FolderListing = std::vector<FolderEntry>;

/** Throws InvalidInput naming the first entry, in order, that no folder of this
 * kind holds, a mount point, or what is required and missing; Denied, Io. */
FolderListing list_folder(
    const std::filesystem::path& folder,
    const FolderKind& kind);

/** Deletes the listed entries and nothing else, the folder too; false when
 * something that is not listed keeps a folder. `parent` is an open folder.
 * Throws Denied, Io. */
bool remove_listed(
    int parent,
    const std::string& name,
    const FolderListing& listing);

/** Whether something is mounted at this place. */
bool is_mount_point(const std::filesystem::path& path);

} // namespace optiq
