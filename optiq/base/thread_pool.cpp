#include "optiq/base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "optiq/base/system.h"

namespace optiq {
namespace {

// About 50 us of pauses: longer than the gap between two ops of a decode step,
// shorter than what a sleeping machine should burn.
constexpr int kSpinPauses = 2000;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/** Spins, then sleeps, until `value` is no longer `old`. */
void wait_for_change(std::atomic<std::uint32_t>& value, std::uint32_t old) {
  for (int i = 0; i < kSpinPauses; ++i) {
    if (value.load(std::memory_order_acquire) != old) {
      return;
    }
    pause_cpu();
  }
  value.wait(old, std::memory_order_acquire);
}

thread_local bool inside_region = false;

} // namespace

struct ThreadPool::State {
  explicit State(int n) {
    start(n);
  }

  ~State() {
    stop();
  }

  void start(int n) {
    n_ranks = std::max(1, n);
    stopping = false;
    arrived = 0;
    for (int rank = 1; rank < n_ranks; ++rank) {
      workers.emplace_back(
          [this, rank, seen = epoch.load()] { work(rank, seen); });
    }
  }

  void stop() {
    stopping = true;
    epoch.fetch_add(1, std::memory_order_release);
    epoch.notify_all();
    for (std::thread& worker : workers) {
      worker.join();
    }
    workers.clear();
  }

  void work(int rank, std::uint32_t seen) {
    inside_region = true;
    while (true) {
      wait_for_change(epoch, seen);
      seen = epoch.load(std::memory_order_acquire);
      if (stopping) {
        return;
      }
      (*body)(rank, n_ranks);
      finish();
    }
  }

  void finish() {
    if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      running.notify_all();
    }
  }

  void barrier() {
    const std::uint32_t generation = phase.load(std::memory_order_acquire);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == n_ranks) {
      arrived.store(0, std::memory_order_relaxed);
      phase.fetch_add(1, std::memory_order_release);
      phase.notify_all();
    } else {
      wait_for_change(phase, generation);
    }
  }

  int n_ranks = 1;
  std::atomic<bool> stopping{false};
  const std::function<void(int, int)>* body = nullptr;
  alignas(64) std::atomic<std::uint32_t> epoch{0};
  alignas(64) std::atomic<std::uint32_t> running{0};
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) std::atomic<std::uint32_t> phase{0};
  std::vector<std::thread> workers;
};

ThreadPool& ThreadPool::shared() {
  // Leaked: kernels may run on other threads during static destruction.
  static auto* pool = new ThreadPool(usable_cores());
  return *pool;
}

ThreadPool::ThreadPool(int n_threads) : state_(new State(n_threads)) {}

ThreadPool::~ThreadPool() {
  delete state_;
}

int ThreadPool::size() const {
  return state_->n_ranks;
}

void ThreadPool::resize(int n_threads) {
  if (n_threads != state_->n_ranks) {
    state_->stop();
    state_->start(n_threads);
  }
}

void ThreadPool::run(const std::function<void(int, int)>& body) {
  State& s = *state_;
  if (inside_region || s.n_ranks == 1) {
    const bool outer = inside_region;
    inside_region = true;
    body(0, 1);
    inside_region = outer;
    return;
  }
  inside_region = true;
  s.body = &body;
  s.running.store(s.n_ranks - 1, std::memory_order_relaxed);
  s.epoch.fetch_add(1, std::memory_order_release);
  s.epoch.notify_all();
  body(0, s.n_ranks);
  std::uint32_t left = s.running.load(std::memory_order_acquire);
  while (left != 0) {
    wait_for_change(s.running, left);
    left = s.running.load(std::memory_order_acquire);
  }
  inside_region = false;
}

void ThreadPool::barrier() {
  if (state_->n_ranks > 1) {
    state_->barrier();
  }
}

void parallel_for(
    std::size_t n,
    std::size_t grain,
    const std::function<void(std::size_t, std::size_t)>& body) {
  if (n == 0) {
    return;
  }
  const std::size_t units = (n + grain - 1) / grain;
  ThreadPool& pool = ThreadPool::shared();
  if (pool.size() == 1 || units == 1) {
    body(0, n);
    return;
  }
  pool.run([&](int rank, int n_ranks) {
    const std::size_t begin = units * rank / n_ranks * grain;
    const std::size_t end = std::min(n, units * (rank + 1) / n_ranks * grain);
    if (begin < end) {
      body(begin, end);
    }
  });
}

} // namespace optiq
