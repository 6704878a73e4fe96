#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace optiq {

/**
 * The process's compute threads. Work comes as a region of pieces: each rank
 * begins with pieces of its own share and then takes what is left of the
 * others', so a thread that the system does not let run holds nobody up but
 * for the piece in its hands. The caller of `run` takes part as rank 0 and
 * waits for no worker to wake up. Workers spin for a short while after a region
 * ends, then sleep on a futex. Any thread may call `run`: callers take turns,
 * first come, first served. Nested calls run inline on the caller.
 */
class ThreadPool {
 public:
  /** The shared pool, leaked at exit. First use sizes it to the cores, and
   * throws as the constructor. */
  static ThreadPool& shared();

  /** Throws Exhausted when the system refuses a thread. Pieces are counted from
   * `first_piece` on: tests begin near the end of the counter. */
  explicit ThreadPool(int n_threads, std::uint32_t first_piece = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /** Number of ranks, the caller included; at least 1. */
  int size() const;
  /** Changes the number of ranks; not while other threads use the pool. Throws
   * Exhausted when the system refuses a thread, and leaves one rank. */
  void resize(int n_threads);
  /** Into how many pieces work goes that can be divided into so many: a few for
   * each rank. */
  int pieces(std::size_t most) const;

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

  /** Pieces 0 to n - 1 in any order, many at a time: body(rank, piece), which
   * outlives the stage and must not throw. A rank has one piece at a time, and
   * no two ranks the same number. */
  class Stage {
   public:
    template <std::invocable<int, int> Body>
    Stage(int n_pieces, const Body& body)
        : n_pieces_(n_pieces),
          call_([](const void* object, int rank, int piece) {
            (*static_cast<const Body*>(object))(rank, piece);
          }),
          object_(&body) {}

   private:
    friend class ThreadPool;
    /** A body without its type: a region allocates nothing. */
    using Call = void (*)(const void* object, int rank, int piece);
    int n_pieces_;
    Call call_;
    const void* object_;
  };

  static constexpr int kMostStages = 3;
  static constexpr int kMostPieces = 1023; // of a stage

  /** Runs stages one after another and returns when all pieces are done, in a
   * turn of its own where the thread has none. */
  void run(std::initializer_list<Stage> stages);

  template <std::invocable<int, int> Body>
  void run(int n_pieces, const Body& body) {
    run({Stage(n_pieces, body)});
  }

 private:
  struct State;
  State* state_;
};

/**
 * Calls body(begin, end) for ranges that together are [0, n), on multiples of
 * `grain`. Ranges are not smaller than `least` but where each rank gets one
 * only.
 */
template <std::invocable<std::size_t, std::size_t> Body>
void parallel_for(
    std::size_t n,
    std::size_t grain,
    const Body& body,
    std::size_t least = 0) {
  if (n == 0) {
    return;
  }
  const std::size_t units = (n + grain - 1) / grain;
  ThreadPool& pool = ThreadPool::shared();
  const auto n_ranks = static_cast<std::size_t>(pool.size());
  if (n_ranks == 1 || units == 1) {
    body(std::size_t{0}, n);
    return;
  }
  std::size_t most = units;
  if (least > grain) { // shares stay equal
    most = std::min(
        units, std::max<std::size_t>(1, n / least / n_ranks) * n_ranks);
  }
  const int n_pieces = pool.pieces(most);
  pool.run(n_pieces, [&](int, int piece) {
    const std::size_t begin = units * piece / n_pieces * grain;
    const std::size_t end = std::min(n, units * (piece + 1) / n_pieces * grain);
    body(begin, end);
  });
}

} // namespace optiq
