#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "optiq/io/hub/id.h"

namespace optiq::io {

/** One cached revision of a model. */
struct CachedRevision {
  std::string commit;
  std::vector<std::string> refs; // that name it: "main"
  std::filesystem::path path; // of the snapshot
  std::uint64_t bytes = 0; // of its files, each counted once
};

/** One cached model. */
struct CachedRepo {
  std::string repo; // "org/name", or an old model's "name"
  std::vector<CachedRevision> revisions; // sorted by commit
  /** Of the revisions' files, each once, and of unfinished downloads. */
  std::uint64_t bytes = 0;
  std::uint64_t unfinished_bytes = 0; // of interrupted downloads
};

/** What a removal took away. */
struct RemovedFiles {
  std::size_t n_revisions = 0;
  std::uint64_t bytes = 0;
};

/**
 * The cache of models that huggingface_hub also reads and writes:
 *
 *   <root>/models--<org>--<name>/blobs/<hash>                 the bytes
 *                                blobs/<hash>.incomplete      a part of them
 *                                refs/<revision>              holds a commit
 *                                snapshots/<commit>/<file>    link to a blob
 *                                .no_exist/, trees/           of no use here
 *   <root>/.locks/models--<org>--<name>/<hash>.lock           flock
 *
 * <hash> is the SHA-256 of a large (LFS) file, else git's SHA-1 of the blob. A
 * blob appears under its name only when complete and checked; a ref is written
 * only when its snapshot is complete. Where the system knows no links (Windows)
 * a file of a snapshot is the file itself, and there may be no blobs.
 */
class HubCache {
 public:
  explicit HubCache(std::filesystem::path root) : root_(std::move(root)) {}

  const std::filesystem::path& root() const {
    return root_;
  }
  std::filesystem::path repo_folder(const std::string& repo) const;
  std::filesystem::path snapshot(
      const std::string& repo,
      const std::string& commit) const;
  std::filesystem::path blob(const std::string& repo, const std::string& hash)
      const;
  std::filesystem::path lock(const std::string& repo, const std::string& hash)
      const;

  /** Whether there is a folder for the model. */
  bool has(const std::string& repo) const;
  /** The commit that a revision named when it was last asked for. */
  std::optional<std::string> commit_of(const HubId& id) const;
  /** Remembers it; a commit names itself. */
  void write_ref(const HubId& id, const std::string& commit) const;
  /** Makes snapshots/<commit>/<file> a link to the blob. */
  void link(
      const std::string& repo,
      const std::string& commit,
      const std::string& file,
      const std::string& hash) const;

  /** Whether a snapshot has a file of so many bytes itself, instead of a link:
   * of systems without links. */
  bool holds_itself(
      const std::string& repo,
      const std::string& commit,
      const std::string& file,
      std::uint64_t bytes) const;

  /** All cached models, sorted by name; folders that are none are left out. */
  std::vector<CachedRepo> list() const;
  /**
   * Deletes a model, or one revision of it where the id names one (blobs that
   * another revision needs stay; the last revision takes the model along, as
   * with huggingface_hub). Throws NotFound; Denied when the folder is a link or
   * a download of it is running.
   */
  RemovedFiles remove(const HubId& id, bool whole) const;

 private:
  std::filesystem::path root_;
};

/** "org/name" of a snapshot or of a file in it; nothing for other paths. */
std::optional<std::string> repo_of_snapshot(const std::filesystem::path& path);

/** An flock on a file that is made for it; held until destroyed. */
class FileLock {
 public:
  /** The lock, or nothing while somebody else holds it. Throws Io, Denied. */
  static std::optional<FileLock> try_lock(const std::filesystem::path& path);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

} // namespace optiq::io
