#include "optiq/server/open_answers.h"

namespace optiq::server {

bool OpenAnswers::add(const std::shared_ptr<Job>& job) {
  const std::lock_guard lock(mutex_);
  if (!is_refusing_) {
    open_.insert({job.get(), job});
  }
  return !is_refusing_;
}

void OpenAnswers::remove(const Job* job) {
  const std::lock_guard lock(mutex_);
  open_.erase({job, {}});
  if (open_.empty()) {
    none_left_.notify_all();
  }
}

void OpenAnswers::refuse_new() {
  const std::lock_guard lock(mutex_);
  is_refusing_ = true;
}

bool OpenAnswers::is_refusing() const {
  const std::lock_guard lock(mutex_);
  return is_refusing_;
}

std::size_t OpenAnswers::size() const {
  const std::lock_guard lock(mutex_);
  return open_.size();
}

std::vector<std::shared_ptr<Job>> OpenAnswers::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Job>> jobs;
  for (const Entry& entry : open_) {
    if (auto job = entry.owner.lock()) {
      jobs.push_back(std::move(job));
    }
  }
  return jobs;
}

bool OpenAnswers::wait_for_none(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return none_left_.wait_for(lock, time, [&] { return open_.empty(); });
}

void OpenAnswers::wait_for_none() {
  std::unique_lock lock(mutex_);
  none_left_.wait(lock, [&] { return open_.empty(); });
}

} // namespace optiq::server
