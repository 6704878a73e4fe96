#include "optiq/base/staged_directory.h"

#include <cerrno>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/posix_impl.h"
#include "optiq/base/temporary_name_impl.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;

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
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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

void remove_dead_staging(const fs::path& target) {
  for (const fs::path& old :
       leftovers(parent_of(target), staging_prefix(target))) {
    // The lock also protects makers that another container's process table
    // does not show.
    const Descriptor lock(lock_folder(old));
    std::error_code ignored; // what stays is tried again the next time
    if (lock.get() >= 0) {
      fs::remove_all(old, ignored);
    }
  }
}

/** Undoes or completes a replacement that a kill interrupted. */
void settle_replaced(const fs::path& target) {
  for (const fs::path& old :
       leftovers(parent_of(target), replaced_prefix(target))) {
    std::error_code ignored; // what stays is tried again the next time
    if (exists_at_all(target)) {
      fs::remove_all(old, ignored);
    } else {
      fs::rename(old, target, ignored);
    }
  }
}

void refuse_existing(const fs::path& target) {
  if (exists_at_all(target)) {
    fail(
        ErrorKind::InvalidInput,
        "[StagedDirectory] {}: already exists, expected a new path. Choose "
        "another one, or allow it to be replaced (--overwrite)",
        target.string());
  }
}

} // namespace

StagedDirectory::StagedDirectory(const fs::path& target, bool replace)
    : target_(fs::absolute(target).lexically_normal()), replace_(replace) {
  if (!target_.has_filename()) {
    target_ = target_.parent_path(); // "out/" is "out"
  }
  const fs::path parent = parent_of(target_);
  std::error_code error;
  fs::create_directories(parent, error);
  if (error) {
    fail_errno("StagedDirectory", parent, "create", error.value());
  }
  settle_replaced(target_);
  remove_dead_staging(target_);
  if (!replace_) {
    refuse_existing(target_);
  }
  do {
    staging_ = parent / unique_name(staging_prefix(target_));
  } while (exists_at_all(staging_));
  if (::mkdir(staging_.c_str(), 0777) != 0) {
    fail_errno("StagedDirectory", staging_, "create", errno);
  }
  lock_fd_ = lock_folder(staging_);
}

StagedDirectory::~StagedDirectory() {
  if (!published_) {
    std::error_code ignored; // the next StagedDirectory removes what stays
    fs::remove_all(staging_, ignored);
  }
  if (lock_fd_ >= 0) {
    ::close(lock_fd_);
  }
}

void StagedDirectory::publish() {
  sync_tree("StagedDirectory::publish", staging_);
  fs::path aside;
  if (exists_at_all(target_)) {
    if (!replace_) {
      refuse_existing(target_);
    }
    aside = parent_of(target_) / unique_name(replaced_prefix(target_));
    if (::rename(target_.c_str(), aside.c_str()) != 0) {
      fail_errno("StagedDirectory::publish", target_, "move aside", errno);
    }
  }
  if (::rename(staging_.c_str(), target_.c_str()) != 0) {
    const int code = errno;
    if (!aside.empty() && ::rename(aside.c_str(), target_.c_str()) != 0) {
      fail(
          ErrorKind::Io,
          "[StagedDirectory::publish] {}: could not be put back; its content "
          "is in {}",
          target_.string(),
          aside.string());
    }
    fail_errno("StagedDirectory::publish", target_, "rename into place", code);
  }
  published_ = true;
  sync_path("StagedDirectory::publish", parent_of(target_));
  if (!aside.empty()) {
    std::error_code error;
    fs::remove_all(aside, error);
    if (error) {
      fail_errno(
          "StagedDirectory::publish", aside, "remove the old", error.value());
    }
  }
}

} // namespace optiq
