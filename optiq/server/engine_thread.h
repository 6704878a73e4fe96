#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "optiq/generate/engine.h"
#include "optiq/models/setup.h"

namespace optiq::server {

/** What is done on the engine's thread, between two steps. */
using EngineCommand = std::function<void(generate::Engine& engine)>;

/**
 * An engine on a thread of its own: takes commands, steps while there is work,
 * sleeps while there is none. What a command or a step throws leaves no request
 * of the engine usable: `on_failure` hears of it, then the engine is made anew.
 */
class EngineThread {
 public:
  struct Hooks {
    std::function<void(const generate::EngineStatus&)> on_step; // of a forward
    std::function<void(std::exception_ptr)> on_failure;
  };

  /** Throws as the constructor of Engine. Hooks are called on the thread. */
  EngineThread(
      models::Setup setup,
      generate::EngineOptions options,
      Hooks hooks);
  /** Ends after the step that runs; commands that wait are dropped. */
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  /** From any thread: runs a command before the next step. */
  void post(EngineCommand command);
  /** As of the last step. */
  generate::EngineStatus status() const;
  std::uint64_t restarts() const;

 private:
  void run();
  /** Commands that came since, in order; waits for one when the engine has
   * nothing to do. Empty and not `is_working`: the end. */
  std::deque<EngineCommand> take_commands(bool is_working);
  /** The commands, then one step. Whether requests are left. */
  bool work(const std::deque<EngineCommand>& commands);
  void restart(std::exception_ptr error);

  models::Setup setup_;
  generate::EngineOptions options_;
  Hooks hooks_;
  std::unique_ptr<generate::Engine> engine_; // of the thread

  mutable std::mutex mutex_; // guards what follows
  std::condition_variable wake_;
  std::deque<EngineCommand> commands_;
  bool is_ending_ = false;
  generate::EngineStatus status_;
  std::uint64_t restarts_ = 0;

  std::thread thread_; // last: it begins when all else is made
};

} // namespace optiq::server
