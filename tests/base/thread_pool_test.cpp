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

#include "optiq/base/error.h"

namespace optiq {
namespace {

TEST(ThreadPool, EveryRankRunsOnceOnAThreadOfItsOwn) {
  for (int threads : {1, 2, 3, 4, 7}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.size(), threads);
    for (int repeat = 0; repeat < 100; ++repeat) {
      std::vector<int> runs(threads, 0);
      std::vector<std::thread::id> ids(threads);
      pool.run([&](int rank, int n_ranks) {
        EXPECT_EQ(n_ranks, threads);
        ++runs[rank];
        ids[rank] = std::this_thread::get_id();
      });
      EXPECT_EQ(runs, std::vector<int>(threads, 1));
      EXPECT_EQ(std::set(ids.begin(), ids.end()).size(), ids.size());
      EXPECT_EQ(ids[0], std::this_thread::get_id());
    }
  }
}

TEST(ThreadPool, NobodyPassesABarrierBeforeTheLast) {
  for (int threads : {1, 2, 3, 4, 5, 8}) {
    ThreadPool pool(threads);
    constexpr int kBarriers = 300;
    // Each rank writes its cell, and behind the barrier reads all cells.
    std::vector<std::vector<int>> cells(
        kBarriers, std::vector<int>(threads, 0));
    std::atomic<int> wrong{0};
    pool.run([&](int rank, int n_ranks) {
      for (int i = 0; i < kBarriers; ++i) {
        if (rank == i % n_ranks && i % 50 == 0) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        cells[i][rank] = i + 1;
        pool.barrier();
        for (int other = 0; other < n_ranks; ++other) {
          wrong += cells[i][other] != i + 1;
        }
      }
    });
    EXPECT_EQ(wrong.load(), 0) << threads << " threads";
  }
}

TEST(ThreadPool, SleepersWakeUp) {
  ThreadPool pool(3);
  for (int i = 0; i < 3; ++i) {
    // Far longer than workers spin.
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    std::atomic<int> count{0};
    pool.run([&](int rank, int) {
      if (rank == 0) { // the others sleep at the barrier
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
      }
      pool.barrier();
      ++count;
    });
    EXPECT_EQ(count.load(), 3);
  }
}

TEST(ThreadPool, NestedRegionsRunInline) {
  ThreadPool pool(2);
  std::atomic<int> count{0};
  pool.run([&](int rank, int) {
    pool.run([&](int inner, int n_ranks) {
      EXPECT_EQ(inner, 0);
      EXPECT_EQ(n_ranks, 1);
      pool.barrier(); // one rank waits for nobody
      count += rank == 0 ? 1 : 10;
    });
    pool.barrier(); // still a region of two
  });
  EXPECT_EQ(count.load(), 11);
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
    std::vector<int> cells(ranks, 0); // of whichever region runs
    std::atomic<int> wrong{0};
    on_threads(kCallers, [&](int caller) {
      for (int i = 0; i < kRegions; ++i) {
        const int mine = caller * kRegions + i + 1;
        pool.run([&](int rank, int n_ranks) {
          cells[rank] = mine;
          pool.barrier();
          for (int other = 0; other < n_ranks; ++other) {
            wrong += cells[other] != mine;
          }
          pool.barrier();
          cells[rank] = 0;
        });
      }
    });
    EXPECT_EQ(wrong.load(), 0) << ranks << " ranks";
  }
}

TEST(ThreadPool, NoCallerStarves) {
  ThreadPool pool(2);
  std::atomic<bool> is_done{false};
  on_threads(2, [&](int caller) {
    const auto run = [&] { pool.run([](int, int) {}); };
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
        pool.run([&](int rank, int) {
          if (rank == 0) {
            order.push_back(caller);
          }
          const ThreadPool::Turn nested(pool); // on every rank
          pool.run([&](int, int n_ranks) { EXPECT_EQ(n_ranks, 1); });
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
    std::atomic<int> count{0};
    pool.run([&](int, int n_ranks) {
      EXPECT_EQ(n_ranks, threads);
      pool.barrier();
      ++count;
    });
    EXPECT_EQ(count.load(), threads);
  }
}

/** Whether a region ends only when every rank has ended it. */
bool waits_for_all(ThreadPool& pool) {
  std::atomic<int> count{0};
  pool.run([&](int rank, int) {
    if (rank != 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    pool.barrier();
    ++count;
  });
  return count.load() == pool.size();
}

TEST(ThreadPool, RunsWhereTheCounterOfRegionsWrapsAround) {
  for (const std::uint32_t edge : {0u, 1u << 31}) {
    ThreadPool pool(3, edge - 5);
    for (int i = 0; i < 20; ++i) {
      EXPECT_TRUE(waits_for_all(pool)) << i - 5 << " from " << edge;
    }
  }
  for (const std::uint32_t begun : {(1u << 31) - 3, (1u << 31) + 3, ~0u - 3}) {
    ThreadPool pool(2, begun);
    for (const int threads : {3, 2, 4}) {
      pool.resize(threads);
      EXPECT_TRUE(waits_for_all(pool)) << threads << " after " << begun;
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
    const bool is_usable = pool.size() == 1 && waits_for_all(pool);
    pool.resize(2);
    try {
      const ThreadPool another(1024);
    } catch (const Error& error) {
      ::_exit(is_usable && waits_for_all(pool) ? exit_code(error.kind()) : 1);
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
