#pragma once

#include <atomic>
#include <memory>

namespace optiq::cli {

/**
 * While it lives, the first Ctrl-C (SIGINT) or SIGTERM sets `flag` instead of
 * ending the process; a second one ends it at once.
 */
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  const std::atomic<bool>& flag() const;
};

/** While it lives, Ctrl-C sets `flag`, however often, and ends nothing, not
 * even a system call that waits; what it did before comes back. */
class InterruptCatcher {
 public:
  InterruptCatcher();
  ~InterruptCatcher();
  InterruptCatcher(const InterruptCatcher&) = delete;
  InterruptCatcher& operator=(const InterruptCatcher&) = delete;

  const std::atomic<bool>& flag() const;

 private:
  struct Before;
  std::unique_ptr<Before> before_;
};

} // namespace optiq::cli
