#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

/**
 * Passes over a row of logits, as sampling needs them: on the host, and on
 * devices with the same bits (Device::block_sums). A row lies
 * in blocks, which the threads of the pool share; NaN is passed over. Results
 * are bit-equal on every SIMD target, so that a seed draws the same tokens
 * everywhere: no fused multiply-add, and a sum is 16 running sums of float32,
 * added up in double. exp(-x) is right to (2 + x) 2^-23 of it.
 */
namespace optiq::kernels {

inline constexpr std::size_t kLogitBlock = 256;

/** n logits in blocks of kLogitBlock, the last of which may be shorter. */
struct LogitBlocks {
  std::span<const float* const> blocks;
  std::size_t n = 0;

  std::size_t size(std::size_t block) const {
    return block + 1 < blocks.size() ? kLogitBlock : n - block * kLogitBlock;
  }
};

/** What a row's blocks add up to at one scale: results of the functions below.
 */
struct BlockSums {
  std::vector<float> maxima; // [blocks]
  std::vector<double> masses; // [blocks]
  std::vector<double> depths; // [blocks]
};

/** A block of one of several rows. */
struct LogitBlockId {
  int row = 0;
  int block = 0;
};

/** Blocks of a row of n logits. */
inline std::size_t count_logit_blocks(std::size_t n) {
  return (n + kLogitBlock - 1) / kLogitBlock;
}

/** exp(x scale) is 2^(x binary_scale), which is finite. */
float binary_scale(float scale);

/** The largest value of each block; -inf where there is none.
 * maxima [blocks]. */
void block_maxima(const LogitBlocks& row, std::span<float> maxima);

/** Of each block sum exp((x - maximum) scale); 0 where the maximum is not
 * finite. scale > 0; masses [blocks]. */
void block_masses(
    const LogitBlocks& row,
    std::span<const float> maxima,
    float scale,
    std::span<double> masses);

/** Of each block sum exp(-depth) depth, depth = (maximum - x) scale; as
 * block_masses. depths [blocks]. */
void block_depths(
    const LogitBlocks& row,
    std::span<const float> maxima,
    float scale,
    std::span<double> depths);

/** exp((x - largest) scale) for x <= largest; 0 for NaN and where it would be
 * below 2^-126. weights [logits]. */
void exp_logits(
    std::span<const float> logits,
    float largest,
    float scale,
    std::span<float> weights);

/** Room that find_at_least needs in each array. */
inline constexpr std::size_t kFoundRoom = kLogitBlock + 16;

/** The values of at least `threshold` among at most kLogitBlock, in order, and
 * their indices, counted from `first`; how many there are. */
std::size_t find_at_least(
    std::span<const float> logits,
    float threshold,
    std::int32_t first,
    std::span<std::int32_t, kFoundRoom> indices,
    std::span<float, kFoundRoom> values);

} // namespace optiq::kernels
