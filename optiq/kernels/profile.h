#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <string_view>
#include <vector>

/**
 * Where the time of a device's operations goes. Each of the CPU's starts with
 * an OpTimer; without a profile it costs one load and one branch.
 */
namespace optiq::kernels {

/** What is counted together: an operation, and for a product its sizes. */
struct OpKey {
  std::string_view name;
  int in = 0; // 0: no sizes
  int out = 0; // over all matrices of a call
  int bits = 0; // of the first matrix

  bool operator==(const OpKey&) const = default;
};

struct OpTotal {
  OpKey key;
  std::uint64_t calls = 0;
  double seconds = 0;
  std::uint64_t bytes = 0; // of weights or cache read, where the op says so
};

/** Collects while it lives. At most one at a time; only the thread that runs
 * the operations may read it. */
class OpProfile {
 public:
  OpProfile();
  ~OpProfile();
  OpProfile(const OpProfile&) = delete;
  OpProfile& operator=(const OpProfile&) = delete;

  /** What collects now, or null. */
  static OpProfile* active() {
    return active_.load(std::memory_order_relaxed);
  }
  /** Counts a call that a device timed by itself. */
  void add(const OpKey& key, double seconds, std::uint64_t bytes);

  /** The longest first. */
  std::vector<OpTotal> totals() const;
  /** Forgets what was counted. */
  void clear() {
    totals_.clear();
  }

 private:
  static std::atomic<OpProfile*> active_;
  std::vector<OpTotal> totals_;
};

/** Counts its own lifetime as one call. */
class OpTimer {
 public:
  /** Takes a function that returns {key, bytes}, called only when a profile
   * collects. */
  template <std::invocable Describe>
  explicit OpTimer(const Describe& describe) : profile_(OpProfile::active()) {
    if (profile_ != nullptr) {
      const auto [key, bytes] = describe();
      start(key, bytes);
    }
  }
  explicit OpTimer(std::string_view name)
      : OpTimer([name] {
          return Described{{.name = name}, 0};
        }) {}
  ~OpTimer() {
    if (profile_ != nullptr) {
      stop();
    }
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

  struct Described {
    OpKey key;
    std::uint64_t bytes;
  };

 private:
  void start(const OpKey& key, std::uint64_t bytes);
  void stop();

  OpProfile* profile_;
  Described what_;
  std::int64_t started_ = 0; // nanoseconds
};

} // namespace optiq::kernels
