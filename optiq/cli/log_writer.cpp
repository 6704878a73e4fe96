#include "optiq/cli/log_writer.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include <fmt/format.h>

namespace optiq::cli {

struct LogWriter::State {
  Write write;
  std::size_t max_waiting = 0;
  std::mutex mutex; // guards what follows
  std::condition_variable changed;
  std::deque<std::string> lines;
  std::size_t dropped = 0;
  bool ending = false;
  bool ended = false;

  void run();
};

void LogWriter::State::run() {
  std::unique_lock lock(mutex);
  while (true) {
    changed.wait(lock, [&] { return ending || !lines.empty(); });
    const auto batch = std::exchange(lines, {});
    const std::size_t lost = std::exchange(dropped, 0);
    if (batch.empty()) {
      break; // ending
    }
    lock.unlock();
    for (const std::string& line : batch) {
      write(line);
    }
    if (lost > 0) {
      write(fmt::format("{} lines of the log were dropped", lost));
    }
    lock.lock();
  }
  ended = true;
  changed.notify_all();
}

LogWriter::LogWriter(Write write, std::size_t max_waiting)
    : state_(std::make_shared<State>()) {
  state_->write = std::move(write);
  state_->max_waiting = max_waiting;
  std::thread([state = state_] { state->run(); }).detach();
}

LogWriter::~LogWriter() {
  std::unique_lock lock(state_->mutex);
  state_->ending = true;
  state_->changed.notify_all();
  state_->changed.wait_for(
      lock, std::chrono::seconds(1), [&] { return state_->ended; });
}

void LogWriter::push(std::string line) {
  const std::lock_guard lock(state_->mutex);
  if (state_->lines.size() >= state_->max_waiting) {
    ++state_->dropped;
    return;
  }
  state_->lines.push_back(std::move(line));
  state_->changed.notify_all();
}

} // namespace optiq::cli
