#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace optiq {

/** One step of long work. The library reports; the CLI draws. */
struct ProgressEvent {
  std::string stage; // "sensitivity", "write", ...
  std::uint64_t done = 0;
  std::uint64_t total = 0; // same unit as done; 0 = unknown
  std::string detail; // what is being worked on, may be empty
};

/** Called on the working thread; may throw Error{Cancelled} to stop. */
using ProgressSink = std::function<void(const ProgressEvent&)>;

} // namespace optiq
