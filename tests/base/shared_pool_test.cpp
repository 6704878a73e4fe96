#include <cstdio>
#include <fstream>
#include <system_error>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/base/thread_pool.h"

namespace optiq {
namespace {

// In a program of its own, where no other test has used the shared pool.
TEST(SharedPool, AThreadRefusedAtItsFirstUseIsASentence) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's shadow exceeds any limit on memory";
#endif
  if (usable_cores() == 1) {
    GTEST_SKIP() << "one core needs no thread";
  }
  const auto use = [] {
    rlim_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages; // mapped so far
    const rlim_t limit =
        pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE)) + (4u << 20);
    const struct rlimit none { limit, limit }; // a stack takes 8 MiB
    ::setrlimit(RLIMIT_AS, &none);
    // Stacks that libraries left may be used again: all are taken first.
    std::vector<std::thread> others;
    try {
      while (true) {
        others.emplace_back([] { ::pause(); });
      }
    } catch (const std::system_error&) { // now there are no more
    }
    try {
      parallel_for(1000, 1, [](std::size_t, std::size_t) {});
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      ::_exit(exit_code(error.kind()));
    }
    ::_exit(0);
  };
  EXPECT_EXIT(
      use(),
      testing::ExitedWithCode(exit_code(ErrorKind::Exhausted)),
      "\\[ThreadPool\\] cannot start compute thread 2 of ");
}

} // namespace
} // namespace optiq
