#include "optiq/io/hub/cache.h"

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/file.h"
#include "optiq/base/output_file.h"

namespace optiq::io {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "models--";
constexpr const char* kIncomplete = ".incomplete";
constexpr std::size_t kMaxRefBytes = 1000;
// What desktops leave in every folder that was looked at.
constexpr const char* kDesktopFiles[] = {
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini"};

[[noreturn]] void
fail_code(const char* function, const fs::path& path, std::error_code code) {
  const bool is_denied = code == std::errc::permission_denied ||
      code == std::errc::read_only_file_system;
  fail(
      is_denied ? ErrorKind::Denied : ErrorKind::Io,
      "[{}] {}: {}",
      function,
      path.string(),
      code.message());
}

std::string folder_name(const std::string& repo) {
  std::string name = kPrefix + repo;
  if (const std::size_t slash = name.find('/'); slash != std::string::npos) {
    name.replace(slash, 1, "--");
  }
  return name;
}

/** "org/name" or "name" of a folder's name, "" when it is not a model's. */
std::string repo_of_folder(const std::string& name) {
  if (!name.starts_with(kPrefix)) {
    return {};
  }
  std::string repo = name.substr(std::string_view(kPrefix).size());
  const std::size_t at = repo.find("--");
  if (at != std::string::npos) {
    repo.replace(at, 2, "/");
  }
  return parse_cached_id(repo) ? repo : std::string();
}

std::vector<fs::directory_entry> entries_of(const fs::path& folder) {
  std::vector<fs::directory_entry> entries;
  std::error_code error; // an absent folder has no entries
  for (const fs::directory_entry& entry :
       fs::directory_iterator(folder, error)) {
    entries.push_back(entry);
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

bool is_desktop_file(const fs::path& path) {
  return std::find(
             std::begin(kDesktopFiles),
             std::end(kDesktopFiles),
             path.filename()) != std::end(kDesktopFiles);
}

/** Files and links to files below a folder; links to folders are not gone
 * into. */
std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error; // an absent folder has no files
  for (const fs::directory_entry& entry :
       fs::recursive_directory_iterator(folder, error)) {
    std::error_code dangling; // a link to nowhere is no folder
    if (!entry.is_directory(dangling)) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

/** The blobs of a snapshot: the targets of its links, one hop. */
std::set<fs::path> blobs_of(const fs::path& snapshot) {
  std::set<fs::path> blobs;
  for (const fs::path& file : files_below(snapshot)) {
    std::error_code error; // no link: the file is its own blob
    const fs::path target = fs::read_symlink(file, error);
    blobs.insert(
        error ? file : (file.parent_path() / target).lexically_normal());
  }
  return blobs;
}

std::uint64_t size_of(const fs::path& path) {
  std::error_code error; // a dangling link has no bytes
  const std::uintmax_t size = fs::file_size(path, error);
  return error ? 0 : size;
}

std::uint64_t size_of(const std::set<fs::path>& paths) {
  std::uint64_t bytes = 0;
  for (const fs::path& path : paths) {
    bytes += size_of(path);
  }
  return bytes;
}

/** The commit that a ref's file names; editors end it with a newline. */
std::string read_ref(const fs::path& file) {
  std::string text = read_text_file(file, kMaxRefBytes);
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  return text;
}

/** Ref names by the commit they hold. */
std::map<std::string, std::vector<std::string>> refs_below(
    const fs::path& folder) {
  std::map<std::string, std::vector<std::string>> refs;
  for (const fs::path& file : files_below(folder)) {
    if (!is_desktop_file(file) && size_of(file) <= kMaxRefBytes &&
        fs::is_regular_file(file)) {
      refs[read_ref(file)].push_back(file.lexically_relative(folder).string());
    }
  }
  return refs;
}

CachedRepo scan_repo(const std::string& repo, const fs::path& folder) {
  CachedRepo result{.repo = repo};
  auto refs = refs_below(folder / "refs");
  std::set<fs::path> all_blobs;
  for (const fs::directory_entry& entry : entries_of(folder / "snapshots")) {
    if (!entry.is_directory()) {
      continue;
    }
    const std::string commit = entry.path().filename().string();
    std::set<fs::path> blobs = blobs_of(entry.path());
    result.revisions.push_back(
        {.commit = commit,
         .refs = refs[commit],
         .path = entry.path(),
         .bytes = size_of(blobs)});
    all_blobs.merge(blobs);
  }
  for (const fs::directory_entry& entry : entries_of(folder / "blobs")) {
    if (entry.path().extension() == kIncomplete) {
      result.unfinished_bytes += size_of(entry.path());
    }
  }
  result.bytes = size_of(all_blobs) + result.unfinished_bytes;
  return result;
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    fail_code("HubCache", folder, error);
  }
}

void remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error); // does not follow links
  if (error) {
    fail_code("HubCache::remove", path, error);
  }
}

/** Deletes one snapshot, its refs, and the blobs that only it used. */
void remove_revision(const fs::path& folder, const std::string& commit) {
  const fs::path snapshots = folder / "snapshots";
  const std::set<fs::path> own = blobs_of(snapshots / commit);
  std::set<fs::path> kept;
  for (const fs::directory_entry& entry : entries_of(snapshots)) {
    if (entry.path().filename() != commit) {
      kept.merge(blobs_of(entry.path()));
    }
  }
  auto refs = refs_below(folder / "refs");
  for (const std::string& ref : refs[commit]) {
    remove_tree(folder / "refs" / ref);
  }
  remove_tree(snapshots / commit);
  const fs::path blobs = folder / "blobs";
  for (const fs::path& blob : own) {
    if (!kept.contains(blob) && blob.parent_path() == blobs) {
      remove_tree(blob);
    }
  }
}

} // namespace

fs::path HubCache::repo_folder(const std::string& repo) const {
  return root_ / folder_name(repo);
}

fs::path HubCache::snapshot(const std::string& repo, const std::string& commit)
    const {
  return repo_folder(repo) / "snapshots" / commit;
}

fs::path HubCache::blob(const std::string& repo, const std::string& hash)
    const {
  return repo_folder(repo) / "blobs" / hash;
}

fs::path HubCache::lock(const std::string& repo, const std::string& hash)
    const {
  return root_ / ".locks" / folder_name(repo) / (hash + ".lock");
}

bool HubCache::has(const std::string& repo) const {
  std::error_code error; // an unreadable folder is none
  return fs::is_directory(repo_folder(repo), error);
}

std::optional<std::string> HubCache::commit_of(const HubId& id) const {
  if (is_commit(id.revision)) {
    return id.revision;
  }
  const fs::path ref = repo_folder(id.repo) / "refs" / id.revision;
  std::error_code error; // an unreadable ref is an unknown one
  if (!fs::is_regular_file(ref, error)) {
    return std::nullopt;
  }
  const std::string commit = read_ref(ref);
  return is_commit(commit) ? std::optional(commit) : std::nullopt;
}

void HubCache::write_ref(const HubId& id, const std::string& commit) const {
  if (id.revision == commit || commit_of(id) == commit) {
    return;
  }
  const fs::path ref = repo_folder(id.repo) / "refs" / id.revision;
  make_folder(ref.parent_path());
  write_file_atomically(ref, commit);
}

void HubCache::link(
    const std::string& repo,
    const std::string& commit,
    const std::string& file,
    const std::string& hash) const {
  const fs::path path = snapshot(repo, commit) / file;
  make_folder(path.parent_path());
  const fs::path target =
      blob(repo, hash).lexically_relative(path.parent_path());
  std::error_code error;
  if (fs::read_symlink(path, error) == target && !error) {
    return;
  }
  // Renamed into place: a reader sees the old link or the new one.
  const fs::path fresh = path.parent_path() /
      ("." + path.filename().string() + ".tmp-" + std::to_string(::getpid()));
  fs::remove(fresh, error);
  fs::create_symlink(target, fresh, error);
  if (!error) {
    fs::rename(fresh, path, error);
  }
  if (error) {
    fail_code("HubCache::link", path, error);
  }
}

bool HubCache::holds_itself(
    const std::string& repo,
    const std::string& commit,
    const std::string& file,
    std::uint64_t bytes) const {
  const fs::path path = snapshot(repo, commit) / file;
  std::error_code error; // absent
  return fs::is_regular_file(fs::symlink_status(path, error)) &&
      fs::file_size(path, error) == bytes;
}

std::vector<CachedRepo> HubCache::list() const {
  std::vector<CachedRepo> repos;
  for (const fs::directory_entry& entry : entries_of(root_)) {
    const std::string repo = repo_of_folder(entry.path().filename().string());
    if (repo.empty() || !entry.is_directory()) {
      continue;
    }
    CachedRepo found = scan_repo(repo, entry.path());
    // Somebody asked the hub for it, and fetched nothing.
    if (!found.revisions.empty() || found.unfinished_bytes > 0) {
      repos.push_back(std::move(found));
    }
  }
  return repos;
}

RemovedFiles HubCache::remove(const HubId& id, bool whole) const {
  const fs::path folder = repo_folder(id.repo);
  const fs::file_status status = fs::symlink_status(folder);
  if (!fs::exists(status)) {
    fail(
        ErrorKind::NotFound,
        "[HubCache::remove] {}: not in the cache {}. See optiq list",
        id.repo,
        root_.string());
  }
  if (!fs::is_directory(status)) {
    fail(
        ErrorKind::Denied,
        "[HubCache::remove] {}: found a link or a file, expected a folder. "
        "Only what lies inside the cache is deleted",
        folder.string());
  }
  const fs::path locks = root_ / ".locks" / folder_name(id.repo);
  std::vector<FileLock> held; // so that no download starts meanwhile
  for (const fs::directory_entry& entry : entries_of(locks)) {
    auto taken = FileLock::try_lock(entry.path());
    if (!taken) {
      fail(
          ErrorKind::Denied,
          "[HubCache::remove] {}: a download of it is running. Wait, or stop it",
          id.repo);
    }
    held.push_back(std::move(*taken));
  }
  const CachedRepo before = scan_repo(id.repo, folder);
  const auto commit = commit_of(id);
  if (!whole && (!commit || !fs::is_directory(snapshot(id.repo, *commit)))) {
    fail(
        ErrorKind::NotFound,
        "[HubCache::remove] {}: revision {} is not in the cache. See optiq list",
        id.repo,
        id.revision);
  }
  if (whole || before.revisions.size() == 1) {
    remove_tree(folder);
    remove_tree(locks);
    return {before.revisions.size(), before.bytes};
  }
  remove_revision(folder, *commit);
  return {1, before.bytes - scan_repo(id.repo, folder).bytes};
}

std::optional<std::string> repo_of_snapshot(const fs::path& path) {
  std::error_code error; // an unreadable path is no snapshot
  // A file of a snapshot is a link out of it.
  fs::path at = fs::canonical(
      fs::is_directory(path, error) ? path : fs::absolute(path).parent_path(),
      error);
  while (at.has_relative_path() && at.parent_path().filename() != "snapshots") {
    at = at.parent_path();
  }
  if (error || !is_commit(at.filename().string())) {
    return std::nullopt;
  }
  const fs::path folder = at.parent_path().parent_path();
  const std::string repo = repo_of_folder(folder.filename().string());
  return repo.empty() ? std::nullopt : std::optional(repo);
}

// --- FileLock
// -----------------------------------------------------------------

std::optional<FileLock> FileLock::try_lock(const fs::path& path) {
  make_folder(path.parent_path());
  while (true) {
    FileLock lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0664));
    if (lock.fd_ < 0) {
      fail_code(
          "FileLock", path, std::error_code(errno, std::generic_category()));
    }
    if (::flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) {
        return std::nullopt;
      }
      if (errno != EINTR) {
        fail_code(
            "FileLock", path, std::error_code(errno, std::generic_category()));
      }
      continue;
    }
    // Its last holder may have deleted the file: that lock guards no name.
    struct stat status {};
    if (::fstat(lock.fd_, &status) == 0 && status.st_nlink > 0) {
      return lock;
    }
  }
}

FileLock::FileLock(FileLock&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)) {}

FileLock::~FileLock() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

} // namespace optiq::io
