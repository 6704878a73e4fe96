#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>

namespace optiq {

/**
 * The process's compute threads. The caller of `run` takes part as rank 0.
 * Workers spin for a short while after a region ends, then sleep on a futex.
 * Any thread may call `run`: callers take turns, first come, first served.
 * Nested calls run inline on the caller with one rank.
 */
class ThreadPool {
 public:
  /** The shared pool, leaked at exit. First use sizes it to the cores, and
   * throws as the constructor. */
  static ThreadPool& shared();

  /** Throws Exhausted when the system refuses a thread. Regions are counted
   * from `first_region` on: tests begin near the end of the counter. */
  explicit ThreadPool(int n_threads, std::uint32_t first_region = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /** Number of ranks of a region, the caller included; at least 1. */
  int size() const;
  /** Changes the number of ranks; not while other threads use the pool. Throws
   * Exhausted when the system refuses a thread, and leaves one rank. */
  void resize(int n_threads);

  /**
   * While it lives, the regions of its thread follow one another, and those of
   * other threads wait: whoever has hundreds of short ones would else wait to
   * be woken for each. Within a turn or a region of its thread it does nothing.
   * Whoever has it must not wait for another thread that may need one.
   */
  class Turn {
   public:
    explicit Turn(ThreadPool& pool);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    ThreadPool* pool_; // null: it is part of another turn
  };

  /** Calls body(rank, n_ranks) on every rank and returns when all are done, in
   * a turn of its own where the thread has none. The body must not throw. */
  template <std::invocable<int, int> Body>
  void run(const Body& body) {
    run_region(
        [](const void* object, int rank, int n_ranks) {
          (*static_cast<const Body*>(object))(rank, n_ranks);
        },
        &body);
  }

  /** Inside a region: waits until every rank has arrived. */
  void barrier();

 private:
  /** A body without its type: a region allocates nothing. */
  using Call = void (*)(const void* object, int rank, int n_ranks);
  void run_region(Call call, const void* object);

  struct State;
  State* state_;
};

/**
 * Splits [0, n) into one contiguous range per rank, on multiples of `grain`,
 * and calls body(begin, end) for each. Which rank gets what depends only on n,
 * grain and the pool's size.
 */
template <std::invocable<std::size_t, std::size_t> Body>
void parallel_for(std::size_t n, std::size_t grain, const Body& body) {
  if (n == 0) {
    return;
  }
  const std::size_t units = (n + grain - 1) / grain;
  ThreadPool& pool = ThreadPool::shared();
  if (pool.size() == 1 || units == 1) {
    body(std::size_t{0}, n);
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
