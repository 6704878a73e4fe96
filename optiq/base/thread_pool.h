#pragma once

#include <cstddef>
#include <functional>

namespace optiq {

/**
 * The process's compute threads. The caller of `run` takes part as rank 0.
 * Workers spin for a short while after a region ends, then sleep on a futex.
 * Only one thread may be inside `run` at a time (the engine thread); nested
 * calls run inline on the caller with one rank.
 */
class ThreadPool {
 public:
  /** The shared pool, leaked at exit. First use sizes it to the cores. */
  static ThreadPool& shared();

  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /** Number of ranks of a region, the caller included; at least 1. */
  int size() const;
  /** Changes the number of ranks; not while a region runs. */
  void resize(int n_threads);

  /** Calls body(rank, n_ranks) on every rank and returns when all are done. */
  void run(const std::function<void(int rank, int n_ranks)>& body);

  /** Inside a region: waits until every rank has arrived. */
  void barrier();

 private:
  struct State;
  State* state_;
};

/**
 * Splits [0, n) into one contiguous range per rank, on multiples of `grain`,
 * and calls body(begin, end) for each. Which rank gets what depends only on n,
 * grain and the pool's size.
 */
void parallel_for(
    std::size_t n,
    std::size_t grain,
    const std::function<void(std::size_t begin, std::size_t end)>& body);

} // namespace optiq
