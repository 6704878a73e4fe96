#include "optiq/server/folder_inside.h"

#include <algorithm>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"

namespace optiq::server {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void deny(const std::string& path, const std::string& what) {
  fail(
      ErrorKind::Denied,
      "[serve] path {}: found {} outside of --adapters-root, expected a folder "
      "in it",
      artifacts::describe(path),
      what);
}

/** Files that are read through links are those of the root, too. */
void check_entries(
    const fs::path& root,
    const fs::path& folder,
    const std::string& path) {
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end;
       at.increment(error)) {
    std::error_code unknown;
    if (!at->is_symlink(unknown)) {
      continue;
    }
    const fs::path real = fs::canonical(at->path(), unknown);
    if (unknown || !lies_in(real, root)) {
      deny(path, "the file of a link, " + at->path().filename().string() + ",");
    }
  }
}

} // namespace

bool lies_in(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end())
             .first == folder.end();
}

fs::path folder_inside(const fs::path& root, const std::string& path) {
  const fs::path named = (root / path).lexically_normal();
  if (!lies_in(named, root)) {
    deny(path, "what lies");
  }
  std::error_code error;
  fs::path real = fs::canonical(named, error);
  if (!error && !lies_in(real, root)) {
    deny(path, "a link to what lies");
  }
  if (error || !fs::is_directory(real, error)) {
    fail(
        ErrorKind::NotFound,
        "[serve] path {}: found no such folder in --adapters-root, expected "
        "that of an adapter",
        artifacts::describe(path));
  }
  check_entries(root, real, path);
  return real;
}

} // namespace optiq::server
