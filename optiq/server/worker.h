#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace optiq::server {

/** A thread that reads requests: parsing a body, rendering a template and
 * encoding a long prompt take longer than the I/O thread may pause. */
class Worker {
 public:
  /** At most `max_waiting` tasks wait. */
  explicit Worker(std::size_t max_waiting);
  /** Ends after the task that runs; tasks that wait are dropped. */
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /** False when too many wait. Tasks must not throw. */
  bool post(std::function<void()> task);

 private:
  void run();

  std::size_t max_waiting_;
  std::mutex mutex_; // guards what follows
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool is_ending_ = false;

  std::thread thread_; // last: it begins when all else is made
};

} // namespace optiq::server
