#include "optiq/quant/rounder.h"

#include <map>
#include <string>

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "support/expect_error.h"
#include "support/memory_checkpoint.h"

#include "optiq/quant/inventory.h"
#include "optiq/quant/planned_tensors.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

using models::CheckpointTensor;

/** Counts how often each matrix is really rounded. */
struct Counting {
  models::Checkpoint checkpoint = testing::make_checkpoint();
  std::map<std::string, int> calls; // by module and width

  Rounder rounder() {
    return [this](const CheckpointTensor& weight, int bits, int group_size) {
      ++calls[weight.name + " " + std::to_string(bits)];
      return round_to_nearest(weight, bits, group_size);
    };
  }
  const CheckpointTensor& weight(int layer) const {
    return weight_of(
        checkpoint, "model.layers." + std::to_string(layer) + ".mlp.up_proj");
  }
  std::size_t bytes(int bits) const {
    return quantized_bytes(weight(0), bits, 64);
  }
  int count(int layer, int bits) {
    return calls[weight(layer).name + " " + std::to_string(bits)];
  }
};

TEST(RoundToNearest, IsMlxs) {
  const models::Checkpoint checkpoint = testing::make_checkpoint();
  const CheckpointTensor& weight =
      checkpoint.at("model.layers.1.mlp.up_proj.weight");
  for (const int bits : {2, 8}) {
    const auto expected = mx::quantize(weight.load(), 32, bits);
    const kernels::AffineWeights q = round_to_nearest(weight, bits, 32);
    EXPECT_TRUE(mx::array_equal(q.weight, expected[0]).item<bool>());
    EXPECT_TRUE(mx::array_equal(q.scales, expected[1]).item<bool>());
    EXPECT_TRUE(mx::array_equal(q.biases, expected[2]).item<bool>());
  }
}

TEST(Memoized, RoundsOnceByNameWidthAndGroup) {
  Counting counting;
  const Rounder rounder = memoized(counting.rounder(), 1 << 20);
  for (int round = 0; round < 3; ++round) {
    for (const int layer : {0, 1}) {
      for (const int bits : {3, 4}) {
        const auto q = rounder(counting.weight(layer), bits, 64);
        const auto expected =
            round_to_nearest(counting.weight(layer), bits, 64);
        EXPECT_TRUE(mx::array_equal(q.weight, expected.weight).item<bool>());
        EXPECT_TRUE(mx::array_equal(q.scales, expected.scales).item<bool>());
        EXPECT_TRUE(mx::array_equal(q.biases, expected.biases).item<bool>());
      }
    }
  }
  for (const int layer : {0, 1}) {
    EXPECT_EQ(counting.count(layer, 3), 1);
    EXPECT_EQ(counting.count(layer, 4), 1);
  }
  EXPECT_EQ(rounder(counting.weight(0), 4, 32).scales.shape(1), 4);
  EXPECT_EQ(counting.count(0, 4), 2);
  const Rounder copy = rounder;
  copy(counting.weight(1), 4, 64);
  EXPECT_EQ(counting.count(1, 4), 1);
}

TEST(Memoized, KeepsWhatFitsAndStaysWithinItsBound) {
  Counting counting;
  const std::size_t bytes = counting.bytes(4);
  const Rounder rounder = memoized(counting.rounder(), 3 * bytes - 1);
  for (int round = 1; round <= 3; ++round) {
    for (const int layer : {0, 1, 2}) {
      rounder(counting.weight(layer), 4, 64);
    }
    EXPECT_EQ(counting.count(0, 4), 1);
    EXPECT_EQ(counting.count(1, 4), 1);
    EXPECT_EQ(counting.count(2, 4), round);
  }
  const Rounder exact = memoized(counting.rounder(), bytes);
  const Rounder tight = memoized(counting.rounder(), bytes - 1);
  counting.calls.clear();
  for (int round = 1; round <= 2; ++round) {
    exact(counting.weight(0), 4, 64);
    tight(counting.weight(1), 4, 64);
  }
  EXPECT_EQ(counting.count(0, 4), 1);
  EXPECT_EQ(counting.count(1, 4), 2);
}

TEST(MatrixMaker, PacksWhatTheRounderMakes) {
  Counting counting;
  const MatrixMaker make =
      matrix_maker(counting.checkpoint, counting.rounder());
  const kernels::Matrix matrix = make("model.layers.0.mlp.up_proj", 5, 64);
  EXPECT_EQ(matrix.bits(), 5);
  EXPECT_EQ(matrix.group_size(), 64);
  EXPECT_EQ(matrix.out_features(), 256);
  EXPECT_EQ(counting.count(0, 5), 1);
  test::expect_error(
      ErrorKind::NotFound, {"nobody"}, [&] { make("nobody", 4, 64); });
}

} // namespace
} // namespace optiq::quant
