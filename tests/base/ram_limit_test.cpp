#include "optiq/base/ram_limit.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>

#include "support/child_memory.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"

#include "optiq/base/file.h"
#include "optiq/base/mapping_guard.h"
#include "optiq/base/system.h"
#include "optiq/base/system_impl.h"

namespace optiq {
namespace {

constexpr std::size_t kMib = std::size_t{1} << 20;

std::uint64_t resident() {
  const auto memory = resident_memory();
  return memory ? memory->heap + memory->file : 0;
}

class RamLimitTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!resident_memory()) {
      GTEST_SKIP() << "this system does not say what a process has in memory";
    }
  }

  const test::ScratchFolder folder_;
};

TEST_F(RamLimitTest, LetsGoOfPagesOfFilesAndWhatIsSpilled) {
  const std::filesystem::path path = folder_.path() / "weights";
  std::ofstream(path) << std::string(96 * kMib, 'w');
  const std::uint64_t limit = resident() + 120 * kMib;
  const RamLimit limited(limit, folder_.path());
  const auto file = MappedFile::open(path);
  const auto spilled = RamLimit::spill(96 * kMib);
  ASSERT_NE(spilled, nullptr);
  EXPECT_TRUE(is_mapped(spilled.get()));
  // Some at a time, as a model is gone through.
  for (std::size_t at = 0; at < 96 * kMib; at += 8 * kMib) {
    std::fill_n(
        spilled.get() + at, 8 * kMib, static_cast<std::byte>(at / kMib));
    const auto part = file->bytes().subspan(at, 8 * kMib);
    EXPECT_EQ(std::count(part.begin(), part.end(), std::byte{'w'}), 8 * kMib);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_TRUE(!test::kHasOwnMemory || resident() < limit) << resident();
  }
  for (std::size_t at = 0; at < 96 * kMib; at += 8 * kMib) {
    EXPECT_EQ(spilled[at], static_cast<std::byte>(at / kMib));
  }
  EXPECT_EQ(
      std::distance(std::filesystem::directory_iterator(folder_.path()), {}),
      1);
}

TEST_F(RamLimitTest, LeavesTheHeapWhatIsLeft) {
  const RamLimit limited(resident() + 200 * kMib, folder_.path());
  ASSERT_TRUE(RamLimit::left().has_value());
  EXPECT_LE(system_info().available_ram_bytes, 200 * kMib);
  EXPECT_GT(system_info().available_ram_bytes, 100 * kMib);
  test::expect_error(ErrorKind::Exhausted, {"what is large"}, [] {
    require_ram(300 * kMib, "what is large");
  });
}

TEST_F(RamLimitTest, IsOneAtATime) {
  {
    const RamLimit limited(resident() + 200 * kMib, folder_.path());
    test::expect_error(ErrorKind::InvalidInput, {"another"}, [&] {
      RamLimit(resident() + 300 * kMib, folder_.path());
    });
  }
  EXPECT_FALSE(RamLimit::left().has_value());
  EXPECT_EQ(RamLimit::spill(kMib), nullptr);
}

TEST_F(RamLimitTest, RefusesWhatTheProcessHasAlready) {
  test::expect_error(ErrorKind::InvalidInput, {"1 MiB", "at least"}, [&] {
    RamLimit(kMib, folder_.path());
  });
}

} // namespace
} // namespace optiq
