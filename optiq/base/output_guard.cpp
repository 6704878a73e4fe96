#include <cstdlib>
#include <string>
#include <system_error>

#include <pwd.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/output_guard_impl.h"
#include "optiq/base/output_path.h"
#include "optiq/base/posix_impl.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void
refuse(const fs::path& target, const char* relation, const std::string& place) {
  fail(
      ErrorKind::InvalidInput,
      "[StagedDirectory] {}: {} {}, expected a folder of its own for the "
      "result. Choose another place",
      target.string(),
      relation,
      place);
}

/** Refuses a target that holds what a link in the source leads to: weights may
 * lie on another disk. */
void require_apart_from_links(const fs::path& target, const fs::path& source) {
  std::error_code error;
  for (fs::directory_iterator at(source, error), end; !error && at != end;
       at.increment(error)) {
    std::error_code dangling; // such a link leads to nothing
    if (!at->is_symlink(dangling)) {
      continue;
    }
    const fs::path goal = fs::canonical(at->path(), dangling);
    if (!dangling && is_within(goal, target)) {
      refuse(target, "is or holds a part of the source,", goal.string());
    }
  }
  if (error) {
    fail_errno("StagedDirectory", source, "list it", error.value());
  }
}

void refuse_if_within(
    const fs::path& target,
    const fs::path& place,
    const char* what) {
  std::error_code absent; // then it is nobody's
  const fs::path real = fs::canonical(place, absent);
  if (!absent && is_within(real, target)) {
    refuse(target, "is or holds the", std::string(what) + " " + real.string());
  }
}

} // namespace

void require_apart(
    const fs::path& target,
    const fs::path& source,
    const fs::path& place_in_source) {
  if (source.empty()) {
    return;
  }
  const fs::path origin = resolve_output(source);
  if (is_within(origin, target)) {
    refuse(target, "is or holds the source", origin.string());
  }
  if (is_within(target, origin) &&
      (place_in_source.empty() || target != resolve_output(place_in_source))) {
    refuse(target, "lies in the source", origin.string());
  }
  std::error_code error;
  if (fs::is_directory(origin, error)) {
    require_apart_from_links(target, origin);
  }
}

void require_nobodys_place(const fs::path& target) {
  if (target == target.root_path()) {
    refuse(target, "is", "the root of the file system");
  }
  if (const char* home = std::getenv("HOME")) {
    refuse_if_within(target, home, "home folder");
  }
  if (const struct passwd* user = ::getpwuid(::getuid())) {
    refuse_if_within(target, user->pw_dir, "home folder");
  }
  std::error_code absent;
  refuse_if_within(target, fs::current_path(absent), "working folder");
}

} // namespace optiq
