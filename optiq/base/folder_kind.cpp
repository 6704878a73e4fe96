#include "optiq/base/folder_kind.h"

#include <algorithm>

#include <fnmatch.h>

namespace optiq {

bool holds_file(const FolderKind& kind, const std::string& path) {
  return std::any_of(
      kind.files.begin(), kind.files.end(), [&](const std::string& glob) {
        return matches_glob(glob, path);
      });
}

bool holds_folder(const FolderKind& kind, const std::string& path) {
  return std::any_of(
      kind.files.begin(), kind.files.end(), [&](const std::string& glob) {
        return glob.starts_with(path + "/");
      });
}

bool matches_glob(const std::string& glob, const std::string& path) {
  return ::fnmatch(glob.c_str(), path.c_str(), FNM_PATHNAME | FNM_PERIOD) == 0;
}

} // namespace optiq
