#include "optiq/server/engine_thread.h"

#include <exception>
#include <utility>

namespace optiq::server {

EngineThread::EngineThread(
    models::Setup setup,
    generate::EngineOptions options,
    Hooks hooks)
    : setup_(std::move(setup)),
      options_(options),
      hooks_(std::move(hooks)),
      engine_(std::make_unique<generate::Engine>(setup_, options_)),
      status_(engine_->status()),
      thread_([this] { run(); }) {}

EngineThread::~EngineThread() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void EngineThread::post(EngineCommand command) {
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
  }
  wake_.notify_one();
}

generate::EngineStatus EngineThread::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

std::uint64_t EngineThread::restarts() const {
  const std::lock_guard lock(mutex_);
  return restarts_;
}

std::deque<EngineCommand> EngineThread::take_commands(bool is_working) {
  std::unique_lock lock(mutex_);
  if (!is_working) {
    wake_.wait(lock, [&] { return is_ending_ || !commands_.empty(); });
  }
  return std::exchange(commands_, {});
}

void EngineThread::run() {
  bool is_working = false;
  while (true) {
    const auto commands = take_commands(is_working);
    {
      const std::lock_guard lock(mutex_);
      if (is_ending_) {
        return;
      }
    }
    is_working = work(commands);
  }
}

bool EngineThread::work(const std::deque<EngineCommand>& commands) {
  const std::uint64_t steps_before = engine_->status().steps;
  bool has_more = false;
  try {
    for (const EngineCommand& command : commands) {
      command(*engine_);
    }
    has_more = engine_->step();
  } catch (...) {
    restart(std::current_exception());
  }
  const auto status = engine_->status();
  if (hooks_.on_step && status.steps > steps_before) {
    hooks_.on_step(status);
  }
  const std::lock_guard lock(mutex_);
  status_ = status;
  return has_more;
}

void EngineThread::restart(std::exception_ptr error) {
  if (hooks_.on_failure) {
    hooks_.on_failure(std::move(error));
  }
  engine_ = nullptr; // its memory first
  engine_ = std::make_unique<generate::Engine>(setup_, options_);
  const std::lock_guard lock(mutex_);
  ++restarts_;
}

} // namespace optiq::server
