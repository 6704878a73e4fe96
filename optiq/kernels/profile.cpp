#include "optiq/kernels/profile.h"

#include <algorithm>
#include <cassert>
#include <chrono>

namespace optiq::kernels {
namespace {

std::int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

} // namespace

std::atomic<OpProfile*> OpProfile::active_{nullptr};

OpProfile::OpProfile() {
  assert(active_.load() == nullptr);
  active_.store(this);
}

OpProfile::~OpProfile() {
  active_.store(nullptr);
}

std::vector<OpTotal> OpProfile::totals() const {
  std::vector<OpTotal> sorted = totals_;
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.seconds > b.seconds;
  });
  return sorted;
}

void OpProfile::add(const OpKey& key, double seconds, std::uint64_t bytes) {
  auto total = std::find_if(totals_.begin(), totals_.end(), [&](const auto& t) {
    return t.key == key;
  });
  if (total == totals_.end()) {
    total = totals_.insert(totals_.end(), {.key = key});
  }
  ++total->calls;
  total->seconds += seconds;
  total->bytes += bytes;
}

void OpTimer::start(const OpKey& key, std::uint64_t bytes) {
  what_ = {key, bytes};
  started_ = nanoseconds();
}

void OpTimer::stop() {
  const auto took = static_cast<double>(nanoseconds() - started_);
  profile_->add(what_.key, took / 1e9, what_.bytes);
}

} // namespace optiq::kernels
