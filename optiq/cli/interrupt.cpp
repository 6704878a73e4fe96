#include "optiq/cli/interrupt.h"

#include <csignal>

namespace optiq::cli {
namespace {

// Signal handlers reach only static storage.
std::atomic<bool> interrupted{false};

void on_signal(int signal) {
  interrupted.store(true);
  std::signal(signal, SIG_DFL);
}

} // namespace

InterruptGuard::InterruptGuard() {
  interrupted.store(false);
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

InterruptGuard::~InterruptGuard() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

const std::atomic<bool>& InterruptGuard::flag() const {
  return interrupted;
}

struct InterruptCatcher::Before {
  struct sigaction action {};
};

InterruptCatcher::InterruptCatcher() : before_(std::make_unique<Before>()) {
  interrupted.store(false);
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted.store(true); };
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, &before_->action);
}

InterruptCatcher::~InterruptCatcher() {
  sigaction(SIGINT, &before_->action, nullptr);
}

const std::atomic<bool>& InterruptCatcher::flag() const {
  return interrupted;
}

} // namespace optiq::cli
