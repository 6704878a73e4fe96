#include <algorithm>
#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/folder_listing_impl.h"
#include "optiq/base/posix_impl.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;

std::int64_t nanoseconds(const struct stat& status) {
#if defined(__APPLE__)
  const struct timespec& time = status.st_mtimespec;
#else
  const struct timespec& time = status.st_mtim;
#endif
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

struct stat status_of(const fs::path& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    fail_errno("list_folder", path, "look at it", errno);
  }
  return status;
}

FolderEntry describe(std::string path, const struct stat& status) {
  FolderEntry entry{
      .path = std::move(path),
      .is_folder = S_ISDIR(status.st_mode),
      .device = status.st_dev,
      .inode = status.st_ino};
  if (!entry.is_folder) {
    entry.bytes = status.st_size;
    entry.modified_ns = nanoseconds(status);
  }
  return entry;
}

std::vector<std::string> sorted_names(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end;
       at.increment(error)) {
    names.push_back(at->path().filename().string());
  }
  if (error) {
    fail_errno("list_folder", folder, "list it", error.value());
  }
  std::sort(names.begin(), names.end());
  return names;
}

/** Lists one folder after the other; stops at what the kind does not hold. */
class Lister {
 public:
  Lister(const fs::path& root, const FolderKind& kind)
      : root_(root), kind_(kind) {}

  FolderListing run() {
    const struct stat status = status_of(root_);
    if (!S_ISDIR(status.st_mode)) {
      fail(
          ErrorKind::InvalidInput,
          "[list_folder] {}: found a file, and only {} is replaced. Choose "
          "another place",
          root_.string(),
          kind_.name);
    }
    add("", status);
    list("");
    return std::move(listing_);
  }

 private:
  void list(const std::string& folder) {
    for (const std::string& name : sorted_names(root_ / folder)) {
      const std::string path = folder.empty() ? name : folder + "/" + name;
      const struct stat status = status_of(root_ / path);
      const bool is_known = S_ISDIR(status.st_mode)
          ? holds_folder(kind_, path)
          : (S_ISREG(status.st_mode) || S_ISLNK(status.st_mode)) &&
              holds_file(kind_, path);
      if (!is_known) {
        fail(
            ErrorKind::InvalidInput,
            "[list_folder] {}: found '{}', which {} does not hold, and only "
            "{} is replaced. Choose another place, or move it away",
            root_.string(),
            path,
            kind_.name,
            kind_.name);
      }
      add(path, status);
      if (S_ISDIR(status.st_mode)) {
        list(path);
      }
    }
  }

  void add(const std::string& path, const struct stat& status) {
    const fs::path place = path.empty() ? root_ : root_ / path;
    if (is_mount_point(place)) {
      fail(
          ErrorKind::InvalidInput,
          "[list_folder] {}: something is mounted there, and a mount point is "
          "never replaced. Choose another place",
          place.string());
    }
    listing_.push_back(describe(path, status));
  }

  const fs::path& root_;
  const FolderKind& kind_;
  FolderListing listing_;
};

/** Opens a folder of a folder; -1 for a link or what is no folder. */
int open_folder_at(int parent, const std::string& name) {
  return ::openat(
      parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/** Removes "a/b/name" below an open folder without following a link. */
int remove_below(int root, const FolderEntry& entry) {
  const fs::path path(entry.path);
  int at = ::dup(root);
  for (const fs::path& part : path.parent_path()) {
    const Descriptor above(at);
    at = open_folder_at(above.get(), part.string());
    if (at < 0) {
      return errno;
    }
  }
  const Descriptor folder(at);
  const int flag = entry.is_folder ? AT_REMOVEDIR : 0;
  const int result = ::unlinkat(folder.get(), path.filename().c_str(), flag);
  return result == 0 ? 0 : errno;
}

/** Not empty, or no longer what was listed. */
bool is_kept_by_another(int code) {
  return code == ENOTEMPTY || code == EEXIST || code == ENOTDIR ||
      code == EISDIR || code == ELOOP;
}

} // namespace

FolderListing list_folder(const fs::path& folder, const FolderKind& kind) {
  FolderListing listing = Lister(folder, kind).run();
  if (listing.size() == 1) {
    return listing; // an empty folder is of every kind
  }
  for (const std::string& glob : kind.required) {
    const auto is_it = [&](const FolderEntry& entry) {
      return !entry.is_folder && matches_glob(glob, entry.path);
    };
    if (std::none_of(listing.begin(), listing.end(), is_it)) {
      fail(
          ErrorKind::InvalidInput,
          "[list_folder] {}: found no {}, so this is not {}, and only {} is "
          "replaced. Choose another place",
          folder.string(),
          glob,
          kind.name,
          kind.name);
    }
  }
  return listing;
}

bool remove_listed(
    int parent,
    const std::string& name,
    const FolderListing& listing) {
  const Descriptor root(open_folder_at(parent, name));
  if (root.get() < 0) {
    fail_errno("remove_listed", name, "open it", errno);
  }
  bool is_whole = true;
  // Backwards: what lies in a folder comes before the folder.
  for (std::size_t i = listing.size() - 1; i > 0; --i) {
    const int code = remove_below(root.get(), listing[i]);
    is_whole = is_whole && !is_kept_by_another(code);
    if (code != 0 && code != ENOENT && !is_kept_by_another(code)) {
      fail_errno(
          "remove_listed", fs::path(name) / listing[i].path, "remove it", code);
    }
  }
  if (::unlinkat(parent, name.c_str(), AT_REMOVEDIR) == 0) {
    return is_whole;
  }
  if (!is_kept_by_another(errno)) {
    fail_errno("remove_listed", name, "remove it", errno);
  }
  return false;
}

bool is_mount_point(const fs::path& path) {
  struct stat status {};
  struct stat above {};
  if (::lstat(path.c_str(), &status) != 0 ||
      ::lstat(parent_of(path).c_str(), &above) != 0) {
    return false;
  }
  if (status.st_dev != above.st_dev ||
      (status.st_ino == above.st_ino && S_ISDIR(status.st_mode))) {
    return true; // another file system; or the root, which is its own parent
  }
#if defined(__linux__) && defined(STATX_ATTR_MOUNT_ROOT)
  // A bind mount has its neighbours' device: only the kernel tells (since 5.8).
  struct statx more {};
  return ::statx(
             AT_FDCWD,
             path.c_str(),
             AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
             STATX_BASIC_STATS,
             &more) == 0 &&
      (more.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
#else
  return false; // no bind mounts here
#endif
}

} // namespace optiq
