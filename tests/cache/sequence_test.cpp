#include "optiq/cache/sequence.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "optiq/base/error.h"
#include "optiq/kernels/cpu/block_memory.h"

namespace optiq::cache {
namespace {

using kernels::BlockId;
using kernels::cpu::address_of;

const kernels::KvFormat kKv = kernels::cpu_device().kv_format(
    {.dtype = mlx::core::bfloat16, .n_kv_heads = 2, .head_dim = 16});
constexpr std::size_t kBlock = 2 * 2 * 16 * 64 * 2; // K and V, bf16
const RecurrentFormat kRecurrent{.conv_floats = 30, .state_floats = 50};
const std::vector<LayerFormat> kLayers{kKv, kRecurrent, kKv};

/** The message of the Exhausted error that `call` throws. */
std::string exhausted(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Exhausted);
    return error.what();
  }
  ADD_FAILURE() << "nothing thrown";
  return "";
}

/** kKv that sees `window` tokens. */
kernels::KvFormat windowed(int window) {
  kernels::KvFormat format = kKv;
  format.window = window;
  return format;
}

TEST(BlockPool, RespectsTheCapAndSaysTheNumbers) {
  BlockPool pool(1000);
  const BlockId a = pool.allocate(600);
  EXPECT_EQ(pool.used_bytes(), 600U);
  const std::string message = exhausted([&] { pool.allocate(401); });
  for (const char* number : {"600", "1000", "401"}) {
    EXPECT_NE(message.find(number), std::string::npos) << message;
  }
  EXPECT_EQ(pool.used_bytes(), 600U);
  const BlockId b = pool.allocate(400);
  pool.release(a, 600);
  pool.release(b, 400);
  EXPECT_EQ(pool.used_bytes(), 0U);
}

TEST(BlockPool, RecyclesAndZeroes) {
  BlockPool pool(1000);
  const BlockId a = pool.allocate(600);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(address_of(a)) % 64, 0U);
  std::fill_n(address_of(a), 600, std::byte{0xff});
  pool.release(a, 600);
  const BlockId b = pool.allocate(600);
  EXPECT_EQ(a, b);
  EXPECT_TRUE(std::all_of(address_of(b), address_of(b) + 600, [](std::byte x) {
    return x == std::byte{0};
  }));
  pool.release(b, 600);
  // Another size fits although 600 bytes wait to be recycled.
  const BlockId c = pool.allocate(900);
  pool.release(c, 900);
}

TEST(Sequence, GrowsBlockTables) {
  auto pool = std::make_shared<BlockPool>(1 << 20);
  Sequence sequence(pool, kLayers);
  EXPECT_EQ(pool->used_bytes(), fixed_bytes(kLayers));
  EXPECT_TRUE(sequence.blocks(0).empty());
  for (const auto& [tokens, blocks] : std::vector<std::pair<int, int>>{
           {0, 0}, {1, 1}, {64, 1}, {65, 2}, {10, 2}, {200, 4}}) {
    sequence.reserve(tokens);
    EXPECT_EQ(sequence.blocks(0).size(), static_cast<std::size_t>(blocks));
    EXPECT_EQ(sequence.blocks(2).size(), static_cast<std::size_t>(blocks));
    EXPECT_EQ(pool->used_bytes(), fixed_bytes(kLayers) + 2 * blocks * kBlock);
  }
  EXPECT_EQ(sequence.length(), 0);
  sequence.commit(70);
  EXPECT_EQ(sequence.length(), 70);
}

TEST(Sequence, StartsWithZeroStatesApart) {
  auto pool = std::make_shared<BlockPool>(1 << 20);
  const std::vector<LayerFormat> layers{kRecurrent, kRecurrent};
  const auto floats_of = [](const Sequence& sequence, int layer) {
    EXPECT_EQ(sequence.blocks(layer).size(), 1U);
    auto* first =
        reinterpret_cast<float*>(address_of(sequence.blocks(layer).front()));
    return std::span(first, 80);
  };
  {
    // Leaves dirt behind for the next one to find.
    const Sequence dirty(pool, layers);
    for (int layer : {0, 1}) {
      std::ranges::fill(floats_of(dirty, layer), 1.0f + layer);
    }
    for (int layer : {0, 1}) {
      EXPECT_EQ(std::ranges::count(floats_of(dirty, layer), 1.0f + layer), 80);
    }
  }
  EXPECT_EQ(pool->used_bytes(), 0U);
  const Sequence fresh(pool, layers);
  for (int layer : {0, 1}) {
    EXPECT_EQ(std::ranges::count(floats_of(fresh, layer), 0.0f), 80);
  }
}

/** The first block that a row at `length` or later sees, token by token. */
std::size_t first_seen_block(int window, int length) {
  for (int token = 0; token <= length; ++token) {
    if (length - token < window) {
      return token / 64;
    }
  }
  return 0;
}

TEST(Sequence, HoldsNoMoreThanItsWindowAndOneChunk) {
  constexpr int kTokens = 1500;
  for (const int window : {1, 63, 64, 65, 100, 512, 5000}) {
    const std::vector<LayerFormat> layers{windowed(window)};
    for (const int chunk : {1, 63, 64, 65, 300}) {
      const std::size_t bound = sequence_bytes(layers, kTokens, chunk);
      auto pool = std::make_shared<BlockPool>(1 << 30);
      Sequence sequence(pool, layers);
      std::size_t most = 0;
      while (sequence.length() < kTokens) {
        const int rows = std::min(chunk, kTokens - sequence.length());
        const std::size_t first = first_seen_block(window, sequence.length());
        sequence.reserve(sequence.length() + rows);
        most = std::max(most, pool->used_bytes());
        const auto blocks = sequence.blocks(0);
        const std::size_t end = (sequence.length() + rows + 63) / 64;
        ASSERT_EQ(blocks.size(), end);
        for (std::size_t b = 0; b < end; ++b) {
          ASSERT_EQ(blocks[b] != BlockId::None, b >= first)
              << window << " " << chunk << " " << sequence.length() << " " << b;
        }
        sequence.commit(rows);
      }
      EXPECT_LE(most, bound) << window << " " << chunk;
      // At most one block less: the worst offset need not occur.
      EXPECT_GE(most + kBlock, bound) << window << " " << chunk;
      const std::size_t kept =
          (kTokens + 63) / 64 - first_seen_block(window, kTokens);
      EXPECT_EQ(pool->used_bytes(), kept * kBlock);
    }
  }
}

TEST(Sequence, ReleasesOnlyWindowedLayers) {
  auto pool = std::make_shared<BlockPool>(1 << 20);
  {
    const std::vector<LayerFormat> layers{kKv, windowed(64), kRecurrent};
    Sequence sequence(pool, layers);
    sequence.reserve(640);
    sequence.commit(640);
    EXPECT_EQ(pool->used_bytes(), fixed_bytes(layers) + (10 + 1) * kBlock);
    EXPECT_NE(sequence.blocks(0)[0], BlockId::None);
    EXPECT_EQ(sequence.blocks(1)[8], BlockId::None);
    EXPECT_NE(sequence.blocks(1)[9], BlockId::None);
  }
  EXPECT_EQ(pool->used_bytes(), 0U);
}

TEST(Sequence, KeepsNothingForSharedLayers) {
  const std::vector<LayerFormat> layers{kKv, SharedFormat{.layer = 0}};
  EXPECT_EQ(bytes_per_token(layers), kBlock / 64);
  EXPECT_EQ(fixed_bytes(layers), 0U);
  auto pool = std::make_shared<BlockPool>(1 << 20);
  Sequence sequence(pool, layers);
  sequence.reserve(100);
  sequence.commit(100);
  EXPECT_TRUE(sequence.blocks(1).empty());
  EXPECT_EQ(pool->used_bytes(), 2 * kBlock);
}

TEST(Sequence, FailedReserveChangesNothing) {
  // Room for the states, two blocks in each layer and one more: not for four.
  auto pool =
      std::make_shared<BlockPool>(fixed_bytes(kLayers) + 5 * kBlock + 10);
  Sequence sequence(pool, kLayers);
  sequence.reserve(128);
  const std::vector<BlockId> before(
      sequence.blocks(0).begin(), sequence.blocks(0).end());
  const std::size_t used = pool->used_bytes();
  const std::string message = exhausted([&] { sequence.reserve(129); });
  EXPECT_NE(message.find(std::to_string(2 * kBlock)), std::string::npos)
      << message;
  EXPECT_EQ(pool->used_bytes(), used);
  EXPECT_TRUE(std::equal(
      before.begin(),
      before.end(),
      sequence.blocks(0).begin(),
      sequence.blocks(0).end()));
  EXPECT_EQ(sequence.blocks(2).size(), 2U);
  sequence.reserve(128);
}

TEST(Sequence, FailedStartChangesNothing) {
  auto pool = std::make_shared<BlockPool>(fixed_bytes(kLayers) - 1);
  exhausted([&] { const Sequence sequence(pool, kLayers); });
  EXPECT_EQ(pool->used_bytes(), 0U);
}

TEST(Sequence, GivesItsMemoryBack) {
  auto pool = std::make_shared<BlockPool>(fixed_bytes(kLayers) + 2 * kBlock);
  auto first = BlockId::None;
  for (int i = 0; i < 3; ++i) {
    Sequence sequence(pool, kLayers);
    sequence.reserve(64);
    if (i == 0) {
      first = sequence.blocks(2)[0];
    } else {
      // Recycled, not allocated anew.
      EXPECT_TRUE(
          sequence.blocks(0)[0] == first || sequence.blocks(2)[0] == first);
    }
  }
  EXPECT_EQ(pool->used_bytes(), 0U);
}

} // namespace
} // namespace optiq::cache
