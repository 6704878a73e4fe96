#include "optiq/base/staged_directory.h"

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/folder_listing_impl.h"
#include "optiq/base/output_guard_impl.h"
#include "optiq/base/output_path.h"
#include "optiq/base/posix_impl.h"
#include "optiq/base/rename_impl.h"
#include "optiq/base/temporary_name_impl.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPublish = "StagedDirectory::publish";

void sync_tree(const char* function, const fs::path& root) {
  for (const fs::directory_entry& entry :
       fs::recursive_directory_iterator(root)) {
    if (!entry.is_symlink()) {
      sync_path(function, entry.path());
    }
  }
  sync_path(function, root);
}

std::string staging_prefix(const fs::path& target) {
  return "." + target.filename().string() + ".staging-";
}

std::string replaced_prefix(const fs::path& target) {
  return "." + target.filename().string() + ".replaced-";
}

/** Locks a staging folder; -1 when somebody else holds the lock. */
int lock_folder(const fs::path& folder) {
  const int fd =
      ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    return -1;
  }
  // A file system without locks leaves the process id as the only witness.
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(fd);
    return -1;
  }
  return fd;
}

/** A folder of the kind while it is written: whole or not, and with the
 * temporaries of its files. */
FolderKind unfinished(const FolderKind& kind) {
  FolderKind result{.name = kind.name, .files = kind.files, .required = {}};
  for (const std::string& glob : kind.files) {
    const fs::path path(glob);
    result.files.push_back(
        (path.parent_path() / (temporary_prefix(path) + "*")).string());
  }
  return result;
}

/** Deletes a folder of ours with what such a folder holds. Where something
 * else has come into it, it stays. */
void remove_ours(int parent, const fs::path& folder, const FolderKind& kind) {
  try {
    remove_listed(
        parent, folder.filename().string(), list_folder(folder, kind));
  } catch (const Error&) {
    return; // what stays is tried again the next time
  }
}

void remove_dead_staging(
    int parent,
    const fs::path& target,
    const FolderKind& kind) {
  for (const fs::path& old :
       leftovers(parent_of(target), staging_prefix(target))) {
    // The lock also protects makers that another container's process table
    // does not show.
    const Descriptor lock(lock_folder(old));
    if (lock.get() >= 0) {
      remove_ours(parent, old, unfinished(kind));
    }
  }
}

/** Undoes or completes a replacement that a kill interrupted. */
void settle_replaced(
    int parent,
    const fs::path& target,
    const FolderKind& kind) {
  for (const fs::path& old :
       leftovers(parent_of(target), replaced_prefix(target))) {
    // Fails when the target is there: then it is the new one.
    if (rename_to_new(
            parent, old.filename().string(), target.filename().string()) != 0) {
      remove_ours(parent, old, kind);
    }
  }
}

/** Whoever could look into the old folder can look into the new one. */
void copy_mode(const fs::path& from, const fs::path& to) {
  struct stat status {};
  if (::stat(from.c_str(), &status) != 0 ||
      ::chmod(to.c_str(), status.st_mode & 07777) != 0) {
    fail_errno(kPublish, to, "give it the mode of the old one", errno);
  }
}

[[noreturn]] void refuse_existing(const fs::path& target) {
  fail(
      ErrorKind::InvalidInput,
      "[StagedDirectory] {}: already exists, expected a new path. Choose "
      "another one, or allow it to be replaced (--overwrite)",
      target.string());
}

} // namespace

StagedDirectory::StagedDirectory(
    const fs::path& named,
    const StagedOptions& options)
    : kind_(options.kind), target_(resolve_output(named)) {
  require_apart(target_, options.source, options.place_in_source);
  try {
    begin(options.replace);
  } catch (...) {
    discard();
    throw;
  }
}

StagedDirectory::~StagedDirectory() {
  discard();
}

void StagedDirectory::begin(bool replace) {
  make_parents();
  const fs::path parent = parent_of(target_);
  parent_fd_ = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent_fd_ < 0) {
    fail_errno("StagedDirectory", parent, "open it", errno);
  }
  settle_replaced(parent_fd_, target_, kind_);
  remove_dead_staging(parent_fd_, target_, kind_);
  if (exists_at_all(target_)) {
    if (!replace) {
      refuse_existing(target_);
    }
    require_nobodys_place(target_);
    listing_ = list_folder(target_, kind_);
  }
  make_staging();
}

void StagedDirectory::make_parents() {
  std::vector<fs::path> missing;
  for (fs::path at = parent_of(target_); !exists_at_all(at);
       at = parent_of(at)) {
    missing.push_back(at);
  }
  for (auto at = missing.rbegin(); at != missing.rend(); ++at) {
    if (::mkdir(at->c_str(), 0777) == 0) {
      made_parents_.push_back(*at);
    } else if (errno != EEXIST) {
      fail_errno("StagedDirectory", *at, "create it", errno);
    }
  }
}

void StagedDirectory::make_staging() {
  int code = EEXIST;
  while (code == EEXIST) {
    const std::string name = unique_name(staging_prefix(target_));
    code = ::mkdirat(parent_fd_, name.c_str(), 0777) == 0 ? 0 : errno;
    if (code == 0) {
      staging_ = parent_of(target_) / name;
    } else if (code != EEXIST) {
      fail_errno("StagedDirectory", parent_of(target_) / name, "create", code);
    }
  }
  lock_fd_ = lock_folder(staging_);
}

void StagedDirectory::discard() {
  if (!published_ && !staging_.empty()) {
    remove_ours(parent_fd_, staging_, unfinished(kind_));
  }
  if (!published_) {
    for (auto at = made_parents_.rbegin(); at != made_parents_.rend(); ++at) {
      ::rmdir(at->c_str()); // one that somebody uses by now stays
    }
  }
  for (const int fd : {lock_fd_, parent_fd_}) {
    if (fd >= 0) {
      ::close(fd);
    }
  }
}

void StagedDirectory::publish() {
  sync_tree(kPublish, staging_);
  if (listing_.empty() || !exists_at_all(target_)) {
    take_new_name();
  } else {
    replace_listed();
  }
}

void StagedDirectory::take_new_name() {
  const int code = rename_to_new(
      parent_fd_, staging_.filename().string(), target_.filename().string());
  if (code == EEXIST || code == ENOTEMPTY) {
    refuse_existing(target_); // it appeared meanwhile
  }
  if (code != 0) {
    fail_errno(kPublish, target_, "rename into place", code);
  }
  published_ = true;
  sync_path(kPublish, parent_of(target_));
}

void StagedDirectory::replace_listed() {
  require_unchanged(target_);
  copy_mode(target_, staging_);
  const std::string old = swap_in();
  const fs::path place = parent_of(target_) / old;
  try {
    require_unchanged(place); // what was moved may not be what was looked at
  } catch (...) {
    swap_back(old);
    throw;
  }
  sync_path(kPublish, parent_of(target_));
  if (!remove_listed(parent_fd_, old, listing_)) {
    fail(
        ErrorKind::Io,
        "[{}] {}: the new folder is in place, but something came into the old "
        "one meanwhile. It is kept in {}",
        kPublish,
        target_.string(),
        place.string());
  }
}

void StagedDirectory::require_unchanged(const fs::path& folder) const {
  const FolderListing now = list_folder(folder, kind_);
  const auto [was, is] =
      std::mismatch(listing_.begin(), listing_.end(), now.begin(), now.end());
  if (was == listing_.end() && is == now.end()) {
    return;
  }
  const FolderEntry& entry = is == now.end() ? *was : *is;
  fail(
      ErrorKind::InvalidInput,
      "[{}] {}: {} changed while the new content was made, so nothing was "
      "replaced. Look at it and run the command again",
      kPublish,
      target_.string(),
      entry.path.empty() ? "it" : "'" + entry.path + "'");
}

/** Returns the name that the old folder has now. */
std::string StagedDirectory::swap_in() {
  std::string staging = staging_.filename().string();
  const std::string target = target_.filename().string();
  int code = exchange_names(parent_fd_, staging, target);
  if (code == 0) {
    published_ = true;
    return staging;
  }
  if (code != ENOTSUP) {
    fail_errno(kPublish, target_, "replace it", code);
  }
  std::string aside = unique_name(replaced_prefix(target_));
  code = rename_to_new(parent_fd_, target, aside);
  if (code != 0) {
    fail_errno(kPublish, target_, "move it aside", code);
  }
  code = rename_to_new(parent_fd_, staging, target);
  if (code == 0) {
    published_ = true;
    return aside;
  }
  if (rename_to_new(parent_fd_, aside, target) != 0) {
    fail(
        ErrorKind::Io,
        "[{}] {}: could not be put back; its content is in {}",
        kPublish,
        target_.string(),
        (parent_of(target_) / aside).string());
  }
  fail_errno(kPublish, target_, "rename into place", code);
}

void StagedDirectory::swap_back(const std::string& old) {
  const std::string staging = staging_.filename().string();
  const std::string target = target_.filename().string();
  int code = 0;
  if (old == staging) {
    code = exchange_names(parent_fd_, staging, target);
  } else {
    code = rename_to_new(parent_fd_, target, staging);
    code = code == 0 ? rename_to_new(parent_fd_, old, target) : code;
  }
  if (code != 0) {
    fail(
        ErrorKind::Io,
        "[{}] {}: changed while the new content was made, and could not be "
        "put back; its content is in {}",
        kPublish,
        target_.string(),
        (parent_of(target_) / old).string());
  }
  published_ = false;
}

} // namespace optiq
