#include "optiq/kernels/mlx/block_arrays.h"

#include <mlx/memory.h>

namespace optiq::kernels::portable {

BlockArrays::~BlockArrays() {
  for (const auto& [address, block] : blocks_) {
    pending_.erase(address);
  }
}

BlockId BlockArrays::take(std::size_t) {
  auto block = std::make_unique<Block>();
  const Block* address = block.get();
  blocks_.emplace(address, std::move(block));
  return static_cast<BlockId>(reinterpret_cast<std::uint64_t>(address));
}

void BlockArrays::give(BlockId id, std::size_t) {
  const Block* block = &block_of(id);
  pending_.erase(block);
  blocks_.erase(block);
}

void BlockArrays::copy(BlockId to, BlockId from, std::size_t) {
  Block& target = block_of(to);
  target.arrays = block_of(from).arrays;
  pending_.insert(&target);
}

void BlockArrays::discard_idle() {
  mx::clear_cache();
}

} // namespace optiq::kernels::portable
