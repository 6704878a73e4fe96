#pragma once

#include <string>
#include <vector>

namespace optiq {

/** A kind of folder that we write, told by what may lie in one: only such a
 * folder is ever replaced. */
struct FolderKind {
  const char* name; // "a model directory"
  /** Globs (fnmatch) of the paths of its files; a wildcard stays within one
   * name. Its folders are those that the globs name. */
  std::vector<std::string> files;
  /** Globs with a file each in every folder of this kind that is not empty. */
  std::vector<std::string> required;
};

/** Whether a file at this path may lie in such a folder. */
bool holds_file(const FolderKind& kind, const std::string& path);

/** Whether a folder at this path may lie in such a folder. */
bool holds_folder(const FolderKind& kind, const std::string& path);

/** Whether a path is one that the glob stands for. */
bool matches_glob(const std::string& glob, const std::string& path);

} // namespace optiq
