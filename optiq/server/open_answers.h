#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "optiq/server/job.h"

namespace optiq::server {

/** The answers that have not ended. Any thread may call. */
class OpenAnswers {
 public:
  /** False once `refuse_new` was called. */
  bool add(const std::shared_ptr<Job>& job);
  void remove(const Job* job);
  void refuse_new();
  bool is_refusing() const;
  std::size_t size() const;
  std::vector<std::shared_ptr<Job>> all() const;
  /** Whether none is left before the time is over. */
  bool wait_for_none(std::chrono::milliseconds time);
  void wait_for_none();

 private:
  struct Entry {
    const Job* job = nullptr;
    std::weak_ptr<Job> owner;
    bool operator<(const Entry& other) const {
      return job < other.job;
    }
  };

  mutable std::mutex mutex_; // guards what follows
  std::condition_variable none_left_;
  std::set<Entry> open_;
  bool is_refusing_ = false;
};

} // namespace optiq::server
