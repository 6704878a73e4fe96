#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "optiq/kernels/logit_blocks.h"

namespace optiq::generate {

/**
 * A row of logits that can be changed while the row itself is another's: the
 * blocks in which something changes are copied, the others are read where they
 * lie. A row of 250,000 has 977, penalties change some tens.
 */
class LogitRow {
 public:
  /** `logits` must outlive this and not be empty. */
  explicit LogitRow(std::span<const float> logits);
  /** n logits, at least 1, that lie elsewhere: of the functions below only
   * those for blocks that `put` brought may be called. */
  explicit LogitRow(std::size_t n);
  LogitRow(const LogitRow&) = delete;
  LogitRow& operator=(const LogitRow&) = delete;

  std::size_t size() const {
    return n_;
  }
  /** A block, which must outlive this. */
  void put(std::size_t block, const float* logits) {
    blocks_[block] = logits;
  }
  bool contains(std::int32_t id) const {
    return id >= 0 && static_cast<std::size_t>(id) < n_;
  }
  /** id must be in the row, here and below. */
  float operator[](std::int32_t id) const {
    const auto i = static_cast<std::size_t>(id);
    return blocks_[i / kernels::kLogitBlock][i % kernels::kLogitBlock];
  }
  /** To be written; valid until the next call. */
  float& change(std::int32_t id);
  void fill(float value);

  kernels::LogitBlocks blocks() const {
    return {blocks_, n_};
  }
  std::span<const float> block(std::size_t index) const {
    return {blocks_[index], blocks().size(index)};
  }

 private:
  using Block = std::array<float, kernels::kLogitBlock>;
  static constexpr std::int32_t kNotCopied = -1;

  std::size_t n_;
  std::vector<const float*> blocks_;
  std::vector<std::int32_t> copy_of_block_; // index into copies_
  std::deque<Block> copies_;
};

} // namespace optiq::generate
