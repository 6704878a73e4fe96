#include "optiq/base/system.h"

#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

#include "optiq/base/system_impl.h"

namespace optiq {
namespace {

using test::ScratchFolder;

constexpr std::uint64_t kMib = 1 << 20;

/** A made-up / with 1000 MiB of RAM, 600 of them available. */
class FakeRoot {
 public:
  explicit FakeRoot(const std::string& cgroup_lines) {
    write(
        "proc/meminfo",
        "MemTotal:        1024000 kB\n"
        "MemFree:          100000 kB\n"
        "MemAvailable:     614400 kB\n");
    write("proc/self/cgroup", cgroup_lines);
  }
  void write(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories((folder_ / name).parent_path());
    test::write_file(folder_ / name, content);
  }
  void write_cgroup2(
      const std::string& cgroup,
      const std::string& max,
      const std::string& current,
      const std::string& stat) const {
    const std::string base = "sys/fs/cgroup/" + cgroup + "/";
    write(base + "memory.max", max + "\n");
    write(base + "memory.current", current + "\n");
    write(base + "memory.stat", stat);
  }
  MemoryLimits limits() const {
    return read_memory_limits(folder_.path());
  }

 private:
  ScratchFolder folder_;
};

std::string mib(std::uint64_t n) {
  return std::to_string(n * kMib);
}

TEST(MemoryLimits, AreTheMachinesWithoutCgroups) {
  for (const char* lines : {"", "0::/\n", "garbage\n", "0::/gone\n"}) {
    const MemoryLimits limits = FakeRoot(lines).limits();
    EXPECT_EQ(limits.total, 1000 * kMib);
    EXPECT_EQ(limits.available, 600 * kMib);
  }
}

TEST(MemoryLimits, FollowCgroup2AndEveryAncestor) {
  const FakeRoot root("0::/a/b\n");
  root.write_cgroup2("a/b", "max", mib(90), "anon 1\n");
  EXPECT_EQ(root.limits().total, 1000 * kMib);
  root.write_cgroup2("a", mib(400), mib(100), "anon 5\nfile 6\n");
  EXPECT_EQ(root.limits().total, 400 * kMib);
  EXPECT_EQ(root.limits().available, 300 * kMib);
  root.write_cgroup2("a/b", mib(200), mib(150), "anon 5\n");
  EXPECT_EQ(root.limits().total, 200 * kMib);
  EXPECT_EQ(root.limits().available, 50 * kMib);
}

TEST(MemoryLimits, FilePagesOfACgroupAreAvailable) {
  const FakeRoot root("0::/a\n");
  root.write_cgroup2(
      "a",
      mib(200),
      mib(150),
      "active_file " + mib(20) + "\ninactive_file " + mib(40) + "\n");
  EXPECT_EQ(root.limits().available, 110 * kMib);
  root.write_cgroup2("a", mib(200), mib(250), "");
  EXPECT_EQ(root.limits().available, 0u); // used beyond the limit
}

TEST(MemoryLimits, ALimitAboveTheMachineChangesNothing) {
  const FakeRoot root("0::/a\n");
  root.write_cgroup2("a", mib(5000), mib(10), "");
  EXPECT_EQ(root.limits().total, 1000 * kMib);
  EXPECT_EQ(root.limits().available, 600 * kMib);
}

TEST(MemoryLimits, FollowCgroup1) {
  const FakeRoot root("4:cpu,memory:/docker/x\n0::/\n");
  // In a container the path is the host's; the limit is at the mount.
  const std::string mount = "sys/fs/cgroup/memory/";
  root.write(mount + "memory.limit_in_bytes", mib(300) + "\n");
  root.write(mount + "memory.usage_in_bytes", mib(100) + "\n");
  root.write(
      mount + "memory.stat",
      "inactive_file 1\ntotal_inactive_file " + mib(30) + "\n");
  EXPECT_EQ(root.limits().total, 300 * kMib);
  EXPECT_EQ(root.limits().available, 230 * kMib);
}

TEST(SystemInfo, SaysSomethingOfThisMachine) {
  const SystemInfo info = system_info();
  EXPECT_FALSE(info.cpu.empty());
  EXPECT_GE(info.cores, 1);
  EXPECT_GT(info.total_ram_bytes, 64 * kMib);
  EXPECT_GT(info.available_ram_bytes, 0u);
  EXPECT_LE(info.available_ram_bytes, info.total_ram_bytes);
}

TEST(SystemInfo, TheAddressSpaceLimitCounts) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's shadow exceeds any such limit";
#endif
  const pid_t child = ::fork();
  if (child == 0) {
    const struct rlimit limit { 2048 * kMib, 2048 * kMib };
    ::setrlimit(RLIMIT_AS, &limit);
    const auto available = system_info().available_ram_bytes;
    ::_exit(available > 0 && available < 2048 * kMib ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(PeakRss, GrowsWithTouchedMemory) {
  const std::uint64_t before = peak_rss_bytes();
  const std::uint64_t grown = before + 32 * kMib; // beyond the present peak
  const std::vector<char> touched(grown, 1);
  EXPECT_GE(peak_rss_bytes(), grown);
  EXPECT_EQ(touched[grown / 2], 1);
}

TEST(RequireRam, GivesBothNumbersAndThePurpose) {
  require_ram(1, "a byte");
  test::expect_error(
      ErrorKind::Exhausted, {"the moon", "1099511627776 MiB"}, [] {
        require_ram(1ull << 60, "the moon");
      });
}

/** In a child: the limit stays lowered. */
TEST(OpenFiles, AreAllowedUpToTheHardLimit) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit limit{.rlim_cur = 64, .rlim_max = 128};
    setrlimit(RLIMIT_NOFILE, &limit);
    const bool right = allow_open_files(32) == 64 &&
        allow_open_files(100) == 100 && allow_open_files(1000) == 128;
    _exit(right ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

} // namespace
} // namespace optiq
