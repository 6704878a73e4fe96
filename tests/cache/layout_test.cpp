#include "optiq/cache/layout.h"

#include <vector>

#include <gtest/gtest.h>

#include "optiq/kernels/device.h"

namespace optiq::cache {
namespace {

const kernels::KvFormat kKv = kernels::cpu_device().kv_format(
    {.dtype = mlx::core::bfloat16, .n_kv_heads = 2, .head_dim = 16});
constexpr std::size_t kBlock = 2 * 2 * 16 * 64 * 2; // K and V, bf16
const RecurrentFormat kRecurrent{.conv_floats = 30, .state_floats = 50};
const std::vector<LayerFormat> kLayers{kKv, kRecurrent, kKv};

TEST(Layout, CountBytes) {
  EXPECT_EQ(bytes_per_token(kLayers), 2 * kBlock / 64);
  EXPECT_EQ(fixed_bytes(kLayers), 80 * sizeof(float));
}

/** kKv that sees `window` tokens. */
kernels::KvFormat windowed(int window) {
  kernels::KvFormat format = kKv;
  format.window = window;
  return format;
}

TEST(Layout, CountNothingBeyondAWindow) {
  const std::vector<LayerFormat> layers{kKv, windowed(100), kRecurrent};
  const std::size_t token = kBlock / 64;
  EXPECT_EQ(bytes_per_token(layers, 99), 2 * token);
  EXPECT_EQ(bytes_per_token(layers, 100), token);
  const std::size_t fixed = fixed_bytes(layers);
  // The token's own row is written, not read.
  EXPECT_EQ(read_bytes(layers, 99), fixed + 2 * 99 * token);
  EXPECT_EQ(read_bytes(layers, 1000), fixed + (1000 + 99) * token);
}

TEST(Layout, CountsTheWholeBlocksOfASequence) {
  const std::vector<LayerFormat> layers{kKv, windowed(100), kRecurrent};
  const std::size_t fixed = fixed_bytes(layers);
  EXPECT_EQ(sequence_bytes(layers, 0), fixed);
  EXPECT_EQ(sequence_bytes(layers, 64), fixed + 2 * kBlock);
  // All at once, a window hides nothing from the first rows.
  EXPECT_EQ(sequence_bytes(layers, 1000), fixed + 2 * 16 * kBlock);
  // One by one: 100 tokens, begun anywhere in a block.
  EXPECT_EQ(sequence_bytes(layers, 1000, 1), fixed + (16 + 3) * kBlock);
}

} // namespace
} // namespace optiq::cache
