#include "optiq/kernels/cpu/block_memory.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

namespace optiq::kernels::cpu {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

TEST(BlockMemory, BlocksAreApartAndAligned) {
  BlockMemory memory(1);
  struct Block {
    std::byte* begin;
    std::size_t bytes;
  };
  std::vector<Block> blocks;
  // Several regions of 2 MB, and blocks that need a region of their own.
  for (int i = 0; i < 300; ++i) {
    const std::size_t bytes = i % 97 == 96 ? 3 * kMiB : 1 + i * 131 % 50000;
    const BlockId id = memory.take(bytes);
    ASSERT_NE(id, BlockId::None);
    std::byte* const begin = address_of(id);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(begin) % 64, 0U);
    std::fill_n(begin, bytes, static_cast<std::byte>(i));
    blocks.push_back({begin, bytes});
  }
  for (int i = 0; i < 300; ++i) {
    const auto [begin, bytes] = blocks[i];
    EXPECT_TRUE(std::all_of(begin, begin + bytes, [=](std::byte x) {
      return x == static_cast<std::byte>(i);
    })) << i;
  }
}

TEST(BlockMemory, PlacesServeTheirSizeAgain) {
  BlockMemory memory(kMiB);
  const BlockId a = memory.take(1000);
  const BlockId b = memory.take(2000);
  memory.give(a, 1000);
  EXPECT_EQ(memory.idle_bytes(), 1000U);
  EXPECT_TRUE(memory.has_idle(1000));
  EXPECT_FALSE(memory.has_idle(2000));
  const BlockId c = memory.take(500);
  EXPECT_NE(c, a);
  EXPECT_EQ(memory.take(1000), a);
  EXPECT_EQ(memory.idle_bytes(), 0U);
  memory.give(b, 2000);
  memory.give(a, 1000);
  memory.discard_idle();
  EXPECT_EQ(memory.idle_bytes(), 0U);
  EXPECT_FALSE(memory.has_idle(1000));
  EXPECT_EQ(memory.take(1000), a);
  EXPECT_EQ(memory.take(2000), b);
}

/** Pages of this process in RAM; -1 where the system does not say. */
std::int64_t resident_pages() {
  std::ifstream file("/proc/self/statm");
  std::int64_t all = 0;
  std::int64_t resident = -1;
  file >> all >> resident;
  return file ? resident : -1;
}

TEST(BlockMemory, DiscardedPagesAreTheSystems) {
  if (resident_pages() < 0) {
    GTEST_SKIP() << "no /proc/self/statm here";
  }
  constexpr std::size_t kBytes = 16 * kMiB;
  BlockMemory memory(kBytes);
  const BlockId block = memory.take(kBytes);
  std::fill_n(address_of(block), kBytes, std::byte{1});
  memory.give(block, kBytes);
  const std::int64_t before = resident_pages();
  memory.discard_idle();
  const std::int64_t freed =
      (before - resident_pages()) * sysconf(_SC_PAGESIZE);
  EXPECT_GE(freed, static_cast<std::int64_t>(kBytes - kMiB));
  std::fill_n(address_of(memory.take(kBytes)), kBytes, std::byte{2});
}

} // namespace
} // namespace optiq::kernels::cpu
