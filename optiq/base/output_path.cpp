#include "optiq/base/output_path.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <string>
#include <system_error>
#include <vector>

#include <sys/stat.h>

#include "optiq/base/error.h"
#include "optiq/base/posix_impl.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxLinks = 40; // as Linux

/** One walk from the root along the parts of a path. */
class Walk {
 public:
  explicit Walk(const fs::path& named) : named_(named) {
    push(named);
    if (named.is_relative()) {
      std::error_code error;
      push(fs::current_path(error));
      if (error) {
        fail_errno(kFunction, named, "find the working folder", error.value());
      }
    }
  }

  fs::path run() {
    while (!rest_.empty()) {
      const std::string name = rest_.back();
      rest_.pop_back();
      if (name != "." && !name.empty()) {
        step(name);
      }
    }
    return at_;
  }

 private:
  static constexpr const char* kFunction = "resolve_output";

  /** The parts of `path` come next, before those that were to come. */
  void push(const fs::path& path) {
    const fs::path relative = path.relative_path();
    const auto n_before = static_cast<std::ptrdiff_t>(rest_.size());
    for (const fs::path& part : relative) {
      rest_.push_back(part.string());
    }
    std::reverse(rest_.begin() + n_before, rest_.end());
  }

  void step(const std::string& name) {
    if (name == ".." && !is_there_) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] {}: found '..' behind {}, which is not there. Name the place "
          "without '..'",
          kFunction,
          named_.string(),
          at_.string());
    }
    if (name == "..") {
      at_ = at_.parent_path(); // at_ has no links; the root's is the root
      return;
    }
    at_ /= name;
    struct stat status {};
    if (!is_there_) {
      return;
    }
    if (::lstat(at_.c_str(), &status) != 0) {
      if (errno != ENOENT) {
        fail_errno(kFunction, at_, "look at it", errno);
      }
      is_there_ = false;
    } else if (S_ISLNK(status.st_mode)) {
      follow();
    } else if (!S_ISDIR(status.st_mode) && !rest_.empty()) {
      fail_errno(kFunction, at_, "enter it", ENOTDIR);
    }
  }

  void follow() {
    if (++n_links_ > kMaxLinks) {
      fail_errno(kFunction, named_, "follow its links", ELOOP);
    }
    std::error_code error;
    const fs::path goal = fs::read_symlink(at_, error);
    if (error) {
      fail_errno(kFunction, at_, "read the link", error.value());
    }
    at_ = goal.is_absolute() ? "/" : at_.parent_path();
    push(goal);
  }

  const fs::path& named_;
  fs::path at_ = "/"; // where the walk has come to, free of links
  std::vector<std::string> rest_; // parts still to walk, the next one last
  bool is_there_ = true; // at_ exists
  int n_links_ = 0;
};

} // namespace

fs::path resolve_output(const fs::path& named) {
  if (named.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[resolve_output] found an empty path, expected the name of a file or "
        "a folder to write");
  }
  return Walk(named).run();
}

bool is_within(const fs::path& path, const fs::path& folder) {
  const auto [end, rest] =
      std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end();
}

} // namespace optiq
