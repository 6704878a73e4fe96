#include "optiq/base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

#include "optiq/base/error.h"
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

using Counter = std::atomic<std::uint32_t>;

// Between cores a cache line takes 50 to 250 ns, which is what a region costs:
// nothing shares a line that is not sent together. Some processors fetch lines
// in pairs.
constexpr std::size_t kLine = 128;

struct alignas(kLine) LoneCounter {
  Counter value{0};
};

void advance(Counter& counter, std::uint32_t to) {
  // Not a plain store: notify_all looks for sleepers, and that look must not
  // come before the new value, or one who just falls asleep is missed.
  counter.exchange(to, std::memory_order_seq_cst);
  counter.notify_all();
}

/** Spins, then sleeps, until the counter has come to `target`. It may be beyond
 * already, and counters wrap around: the distance is what counts. */
void wait_for(const Counter& counter, std::uint32_t target) {
  int spins = 0;
  while (true) {
    const std::uint32_t now = counter.load(std::memory_order_acquire);
    if (static_cast<std::int32_t>(now - target) >= 0) {
      return;
    }
    if (++spins < kSpinPauses) {
      pause_cpu();
    } else {
      counter.wait(now, std::memory_order_acquire);
    }
  }
}

/** What the current thread is in the region it runs. */
struct Place {
  int rank = 0;
  int n_ranks = 0; // 0: outside of any region
};
thread_local Place place;

} // namespace

struct ThreadPool::State {
  State(int n, std::uint32_t first_region) : regions(first_region) {
    command.number = first_region;
    start(n);
  }

  ~State() {
    stop();
  }

  /** Throws Exhausted when the system refuses a thread; then the caller is the
   * only rank. */
  void start(int n) {
    set_ranks(std::max(1, n));
    workers.reserve(n_ranks);
    try {
      for (int rank = 1; rank < n_ranks; ++rank) {
        workers.emplace_back(
            [this, rank, seen = regions] { work(rank, seen); });
      }
    } catch (const std::system_error& error) {
      const std::size_t n_started = workers.size();
      stop();
      set_ranks(1);
      fail(
          ErrorKind::Exhausted,
          "[ThreadPool] cannot start compute thread {} of {}: {}. Ask for "
          "fewer (--threads), or raise the limits on processes (ulimit -u, "
          "the container's) and memory (ulimit -v)",
          n_started + 2, // the caller is the first
          n,
          error.code().message());
    }
  }

  void set_ranks(int n) {
    n_ranks = n;
    rounds = 0;
    while (1 << rounds < n_ranks) {
      ++rounds;
    }
    finished = std::vector<LoneCounter>(n_ranks);
    for (LoneCounter& last : finished) {
      last.value = regions; // a distance from 0 may be any after 2^31 regions
    }
    passed = std::vector<LoneCounter>(n_ranks);
    signals = std::vector<LoneCounter>(n_ranks * rounds);
  }

  void stop() {
    send(nullptr, nullptr);
    for (std::thread& worker : workers) {
      worker.join();
    }
    workers.clear();
  }

  void send(Call call, const void* object) {
    command.call = call;
    command.object = object;
    advance(command.number, ++regions);
  }

  void work(int rank, std::uint32_t seen) {
    place = {rank, n_ranks};
    while (true) {
      wait_for(command.number, ++seen);
      if (command.call == nullptr) {
        return;
      }
      command.call(command.object, rank, n_ranks);
      advance(finished[rank].value, seen);
    }
  }

  void run(Call call, const void* object) {
    place = {0, n_ranks};
    send(call, object);
    call(object, 0, n_ranks);
    for (int rank = 1; rank < n_ranks; ++rank) {
      wait_for(finished[rank].value, regions);
    }
    place = {};
  }

  /** Dissemination: in round r a rank signals the one 2^r ahead of it and waits
   * for the one 2^r behind. */
  void barrier() {
    Counter& mine = passed[place.rank].value;
    const std::uint32_t number = mine.load(std::memory_order_relaxed) + 1;
    mine.store(number, std::memory_order_relaxed);
    for (int round = 0; round < rounds; ++round) {
      const int ahead = (place.rank + (1 << round)) % n_ranks;
      advance(signals[ahead * rounds + round].value, number);
      wait_for(signals[place.rank * rounds + round].value, number);
    }
  }

  /** False: the calling thread has the turn already. */
  bool take_turn() {
    const std::thread::id self = std::this_thread::get_id();
    if (owner.load(std::memory_order_relaxed) == self) {
      return false;
    }
    const std::uint32_t ticket =
        next_ticket.fetch_add(1, std::memory_order_relaxed);
    while (true) {
      const std::uint32_t now = serving.load(std::memory_order_acquire);
      if (now == ticket) {
        break;
      }
      // No spinning: turns are long, and the cores are their owner's.
      serving.wait(now, std::memory_order_acquire);
    }
    owner.store(self, std::memory_order_relaxed);
    return true;
  }

  void pass_turn() {
    owner.store({}, std::memory_order_relaxed);
    advance(serving, serving.load(std::memory_order_relaxed) + 1);
  }

  /** All that a worker reads to begin, on one line. */
  struct alignas(kLine) Command {
    Counter number{0}; // of the region
    Call call = nullptr; // null: the worker ends
    const void* object = nullptr;
  };

  int n_ranks = 1;
  int rounds = 0; // of a barrier: log2(n_ranks), rounded up
  std::uint32_t regions; // sent so far
  Command command;
  std::vector<LoneCounter> finished; // per rank: its last region
  std::vector<LoneCounter> passed; // per rank, its own: barriers
  std::vector<LoneCounter> signals; // [rank][round]: barriers
  std::vector<std::thread> workers;

  // Turns: who calls `run` draws a ticket and waits until it is served.
  alignas(kLine) Counter next_ticket{0};
  Counter serving{0};
  std::atomic<std::thread::id>
      owner{}; // of the turn; only it writes its own id
};

ThreadPool& ThreadPool::shared() {
  // Leaked: kernels may run on other threads during static destruction.
  static auto* pool = new ThreadPool(usable_cores());
  return *pool;
}

ThreadPool::ThreadPool(int n_threads, std::uint32_t first_region)
    : state_(new State(n_threads, first_region)) {}

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

ThreadPool::Turn::Turn(ThreadPool& pool)
    : pool_(
          place.n_ranks == 0 && pool.size() > 1 && pool.state_->take_turn()
              ? &pool
              : nullptr) {}

ThreadPool::Turn::~Turn() {
  if (pool_ != nullptr) {
    pool_->state_->pass_turn();
  }
}

void ThreadPool::run_region(Call call, const void* object) {
  if (place.n_ranks == 0 && state_->n_ranks > 1) {
    const Turn turn(*this);
    state_->run(call, object);
    return;
  }
  const Place outer = place;
  place = {0, 1};
  call(object, 0, 1);
  place = outer;
}

void ThreadPool::barrier() {
  if (place.n_ranks > 1) {
    state_->barrier();
  }
}

} // namespace optiq
