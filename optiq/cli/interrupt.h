#pragma once

#include <atomic>

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

} // namespace optiq::cli
