#include "optiq/base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/expect_error.h"

#include "optiq/base/error.h"

namespace optiq {
namespace {

/** Waits for n pieces to be begun: then nobody has two of them. */
void meet(std::atomic<int>& n_begun, int n) {
  ++n_begun;
  while (n_begun < n) {
    std::this_thread::yield();
  }
}

/** Whether every rank takes part in a region, whose end waits for the slow. */
bool has_all_ranks(ThreadPool& pool) {
  std::atomic<int> n_begun{0};
  std::atomic<int> n_ended{0};
  pool.run(pool.size(), [&](int, int piece) {
    meet(n_begun, pool.size());
    if (piece != 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    ++n_ended;
  });
  return n_ended == pool.size();
}

/** What is wrong about how pieces of one stage were given out. */
class Ledger {
 public:
  Ledger(int n_pieces, int n_ranks) : done_(n_pieces), busy_(n_ranks) {}

  /** One piece, by body(). */
  template <class Body>
  void note(int rank, int piece, const Body& body) {
    n_wrong_ += busy_[rank].exchange(1); // a rank has one piece at a time
    body();
    busy_[rank] = 0;
    ++done_[piece];
  }
  int n_wrong() const {
    int n = n_wrong_;
    for (const auto& count : done_) {
      n += count != 1;
    }
    return n;
  }

 private:
  std::vector<std::atomic<int>> done_;
  std::vector<std::atomic<int>> busy_;
  std::atomic<int> n_wrong_{0};
};

TEST(ThreadPool, EveryPieceIsDoneOnce) {
  for (const int threads : {1, 2, 3, 4, 7}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.size(), threads);
    for (int repeat = 0; repeat < 100; ++repeat) {
      for (const int n : {1, 2, 5, 64, ThreadPool::kMostPieces}) {
        Ledger ledger(n, threads);
        pool.run(
            n, [&](int rank, int piece) { ledger.note(rank, piece, [] {}); });
        EXPECT_EQ(ledger.n_wrong(), 0) << n << " on " << threads;
      }
    }
  }
}

TEST(ThreadPool, EveryRankIsAThreadOfItsOwn) {
  constexpr int kThreads = 3;
  ThreadPool pool(kThreads);
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::vector<std::thread::id> ids(kThreads);
    std::atomic<int> n_begun{0};
    pool.run(kThreads, [&](int rank, int) {
      ids[rank] = std::this_thread::get_id();
      meet(n_begun, kThreads);
    });
    EXPECT_EQ(std::set(ids.begin(), ids.end()).size(), ids.size());
    EXPECT_EQ(ids[0], std::this_thread::get_id());
  }
}

TEST(ThreadPool, AStageBeginsWhenTheOneBeforeHasEnded) {
  for (const int threads : {1, 2, 3, 4, 5, 8}) {
    ThreadPool pool(threads);
    std::atomic<int> wrong{0};
    for (int repeat = 0; repeat < 100; ++repeat) {
      constexpr int kPieces = 20;
      std::vector<int> first(kPieces, 0);
      std::vector<int> second(kPieces, 0);
      const auto write = [&](int, int piece) {
        if (piece == repeat % kPieces && repeat % 20 == 0) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        first[piece] = repeat + 1;
      };
      const auto copy = [&](int, int piece) {
        second[piece] = first[(piece + repeat) % kPieces];
      };
      const auto check = [&](int, int piece) {
        wrong += second[piece] != repeat + 1;
      };
      const auto never = [&](int, int) { ++wrong; };
      pool.run({{kPieces, write}, {kPieces, copy}, {kPieces, check}});
      pool.run({{0, never}, {kPieces, write}, {0, never}});
      pool.run({});
    }
    EXPECT_EQ(wrong.load(), 0) << threads << " threads";
  }
}

TEST(ThreadPool, RegionsThatEndBeforeAWorkerComesAreLeftAlone) {
  // More ranks than cores: some are always late.
  ThreadPool pool(8);
  for (int repeat = 0; repeat < 3000; ++repeat) {
    const int n = 1 + repeat * 7 % 24;
    std::vector<int> cells(n, 0); // gone when the region has ended
    std::atomic<int> last{0};
    const auto count = [&](int, int piece) { cells[piece] = piece + 1; };
    const auto look = [&](int, int) { last = cells.back(); };
    pool.run({{n, count}, {repeat % 2, look}});
    ASSERT_EQ(cells.front(), 1);
    ASSERT_EQ(cells.back(), n);
    ASSERT_EQ(last, repeat % 2 == 0 ? 0 : n);
  }
}

TEST(ThreadPool, SleepersWakeUp) {
  ThreadPool pool(3);
  for (int i = 0; i < 3; ++i) {
    // Far longer than workers spin.
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    EXPECT_TRUE(has_all_ranks(pool));
  }
}

TEST(ThreadPool, NestedRegionsRunInline) {
  ThreadPool pool(2);
  std::atomic<int> count{0};
  pool.run(2, [&](int, int piece) {
    pool.run(3, [&](int inner, int) {
      EXPECT_EQ(inner, 0);
      count += piece == 0 ? 1 : 10;
    });
  });
  EXPECT_EQ(count.load(), 33);
}

TEST(ThreadPool, WorkGoesIntoAFewPiecesForEachRank) {
  EXPECT_EQ(ThreadPool(1).pieces(1000), 1);
  const ThreadPool pool(3);
  EXPECT_EQ(pool.pieces(0), 1);
  EXPECT_EQ(pool.pieces(5), 5);
  EXPECT_EQ(pool.pieces(1000) % 3, 0);
  EXPECT_LE(pool.pieces(100000), ThreadPool::kMostPieces);
}

TEST(ThreadPool, MoreThanARegionHoldsIsRefused) {
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    const auto body = [](int, int) {};
    test::expect_error(ErrorKind::Internal, {"1024 pieces"}, [&] {
      pool.run(ThreadPool::kMostPieces + 1, body);
    });
    test::expect_error(ErrorKind::Internal, {"4 stages"}, [&] {
      pool.run({{1, body}, {1, body}, {1, body}, {1, body}});
    });
  }
}

/** Calls body(i) on n threads at once. */
template <class Body>
void on_threads(int n, const Body& body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < n; ++i) {
    threads.emplace_back([&body, i] { body(i); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(ThreadPool, CallersTakeTurns) {
  for (const int ranks : {2, 3}) {
    ThreadPool pool(ranks);
    constexpr int kCallers = 4;
    constexpr int kRegions = 50;
    constexpr int kPieces = 6;
    std::vector<int> cells(kPieces, 0); // of whichever region runs
    std::atomic<int> wrong{0};
    on_threads(kCallers, [&](int caller) {
      for (int i = 0; i < kRegions; ++i) {
        const int mine = caller * kRegions + i + 1;
        const auto write = [&](int, int piece) { cells[piece] = mine; };
        const auto check = [&](int, int piece) {
          wrong += cells[kPieces - 1 - piece] != mine;
        };
        pool.run({{kPieces, write}, {kPieces, check}});
      }
    });
    EXPECT_EQ(wrong.load(), 0) << ranks << " ranks";
  }
}

TEST(ThreadPool, NoCallerStarves) {
  ThreadPool pool(2);
  std::atomic<bool> is_done{false};
  on_threads(2, [&](int caller) {
    const auto run = [&] { pool.run(2, [](int, int) {}); };
    if (caller == 0) {
      while (!is_done) { // as long as the other one needs
        run();
      }
    } else {
      for (int i = 0; i < 100; ++i) {
        run();
      }
      is_done = true;
    }
  });
}

TEST(ThreadPool, RegionsOfATurnFollowOneAnother) {
  ThreadPool pool(2);
  std::vector<int> order; // callers of regions
  on_threads(3, [&](int caller) {
    for (int turn = 0; turn < 20; ++turn) {
      const ThreadPool::Turn outer(pool);
      for (int i = 0; i < 4; ++i) {
        const ThreadPool::Turn inner(pool); // part of the outer one
        pool.run(4, [&](int, int piece) {
          if (piece == 0) {
            order.push_back(caller);
          }
          const ThreadPool::Turn nested(pool); // on every rank
          pool.run(2, [&](int rank, int) { EXPECT_EQ(rank, 0); });
        });
      }
    }
  });
  ASSERT_EQ(order.size(), 240U);
  for (std::size_t i = 0; i < order.size(); ++i) {
    EXPECT_EQ(order[i], order[i / 4 * 4]) << "region " << i;
  }
}

TEST(ThreadPool, ResizesBetweenRegions) {
  ThreadPool pool(2);
  for (int threads : {3, 1, 4, 4, 2}) {
    pool.resize(threads);
    EXPECT_EQ(pool.size(), threads);
    EXPECT_TRUE(has_all_ranks(pool)) << threads;
  }
}

TEST(ThreadPool, RunsWhereTheCounterOfPiecesWrapsAround) {
  for (const std::uint32_t edge : {0u, 1u << 31}) {
    ThreadPool pool(3, edge - 15);
    for (int i = 0; i < 20; ++i) {
      EXPECT_TRUE(has_all_ranks(pool)) << i << " near " << edge;
    }
  }
  for (const std::uint32_t begun : {(1u << 31) - 3, (1u << 31) + 3, ~0u - 3}) {
    ThreadPool pool(2, begun);
    for (const int threads : {3, 2, 4}) {
      pool.resize(threads);
      EXPECT_TRUE(has_all_ranks(pool)) << threads << " after " << begun;
    }
  }
}

TEST(ThreadPool, ARefusedThreadIsASentence) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's shadow exceeds any limit on memory";
#endif
  const auto starts = [] {
    // Memory for a few stacks of 8 MiB: the system refuses the next thread as
    // it does at the limit on processes, which does not hold for root.
    rlim_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages; // mapped so far
    const rlim_t limit =
        pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE)) + (256u << 20);
    const struct rlimit few { limit, limit };
    ::setrlimit(RLIMIT_AS, &few);
    ThreadPool pool(2);
    try {
      pool.resize(1024);
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    const bool is_usable = pool.size() == 1 && has_all_ranks(pool);
    pool.resize(2);
    try {
      const ThreadPool another(1024);
    } catch (const Error& error) {
      ::_exit(is_usable && has_all_ranks(pool) ? exit_code(error.kind()) : 1);
    }
    ::_exit(0);
  };
  EXPECT_EXIT(
      starts(),
      testing::ExitedWithCode(exit_code(ErrorKind::Exhausted)),
      "\\[ThreadPool\\] cannot start compute thread [0-9]+ of 1024: .*--threads");
}

TEST(ParallelFor, CoversEveryItemOnceOnMultiplesOfTheGrain) {
  const int size = ThreadPool::shared().size();
  for (int threads : {1, 2, 3}) {
    ThreadPool::shared().resize(threads);
    for (std::size_t n : {0, 1, 7, 8, 9, 64, 1000}) {
      for (std::size_t grain : {1, 8, 1000}) {
        std::vector<std::atomic<int>> seen(n);
        parallel_for(n, grain, [&](std::size_t begin, std::size_t end) {
          EXPECT_EQ(begin % grain, 0u);
          EXPECT_TRUE(end % grain == 0 || end == n);
          for (std::size_t i = begin; i < end; ++i) {
            ++seen[i];
          }
        });
        for (const auto& count : seen) {
          EXPECT_EQ(count.load(), 1);
        }
      }
    }
  }
  ThreadPool::shared().resize(size);
}

} // namespace
} // namespace optiq
