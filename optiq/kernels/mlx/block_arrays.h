#pragma once

#include <cstddef>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <mlx/array.h>

#include "optiq/kernels/block_store.h"

namespace optiq::kernels::portable {

namespace mx = mlx::core;

/** What a BlockId of the MLX device is the address of: arrays that are
 * replaced, never written. Without arrays all is zero. */
struct Block {
  std::vector<mx::array> arrays;
};

inline Block& block_of(BlockId id) {
  return *reinterpret_cast<Block*>(id);
}

/** Blocks whose arrays nobody has evaluated. */
using PendingBlocks = std::unordered_set<const Block*>;

/** Blocks as arrays: a copy shares them, and memory is MLX's, which takes it
 * array by array. */
class BlockArrays final : public BlockStore {
 public:
  explicit BlockArrays(PendingBlocks& pending) : pending_(pending) {}
  ~BlockArrays() override;
  BlockArrays(const BlockArrays&) = delete;
  BlockArrays& operator=(const BlockArrays&) = delete;

  BlockId take(std::size_t bytes) override;
  void give(BlockId block, std::size_t bytes) override;
  void copy(BlockId to, BlockId from, std::size_t bytes) override;
  std::size_t idle_bytes() const override {
    return 0;
  }
  bool has_idle(std::size_t) const override {
    return false;
  }
  void discard_idle() override;

 private:
  PendingBlocks& pending_; // of the device
  std::unordered_map<const Block*, std::unique_ptr<Block>> blocks_;
};

} // namespace optiq::kernels::portable
