#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace optiq {

/** What went wrong, for exit codes, HTTP statuses and callers that react. */
enum class ErrorKind {
  InvalidInput, // a flag, value or request the user can correct
  NotFound, // a file, model or name that is not there
  Unsupported, // understood, but not something OptIQ does
  Corrupt, // a file that breaks its own format
  Io, // the operating system refused a read or a write
  Exhausted, // RAM, disk, queue or budget used up
  Denied, // permission
  Cancelled, // the user interrupted
  Internal, // a defect of ours
};

/**
 * The one exception of the library. The message names the function, the
 * culprit, what was found, what was expected and what to do.
 */
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message)
      : std::runtime_error(message), kind_(kind) {}

  ErrorKind kind() const {
    return kind_;
  }

 private:
  ErrorKind kind_;
};

/** Throws Error with a formatted message. */
template <typename... Args>
[[noreturn]] void
fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

/** Process exit code of an error kind: 2 InvalidInput ... 130 Cancelled. */
int exit_code(ErrorKind kind);

/** Lower-case name of a kind, as printed in JSON: "invalid_input". */
const char* name_of(ErrorKind kind);

} // namespace optiq
