#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "optiq/kernels/block_store.h"
#include "optiq/kernels/cuda/card.h"

namespace optiq::kernels::cuda {

/** Where a block lies: its id is its address. */
inline DevicePointer address_of(BlockId block) {
  return static_cast<DevicePointer>(block);
}

/** Blocks in regions of a card's memory, cut from front to back. The place of
 * a block that was given back is taken again by blocks of its size only. */
class BlockMemory final : public BlockStore {
 public:
  BlockMemory(Card& card, std::size_t region_bytes);

  BlockId take(std::size_t bytes) override;
  void give(BlockId block, std::size_t bytes) override;
  void copy(BlockId to, BlockId from, std::size_t bytes) override;
  std::size_t idle_bytes() const override {
    return idle_bytes_;
  }
  bool has_idle(std::size_t bytes) const override;
  /** Of regions without a block in use: a region goes back as a whole. */
  void discard_idle() override;

 private:
  struct Region {
    Buffer memory;
    std::size_t bytes = 0;
    std::size_t next = 0; // where the next block is cut
    std::size_t used = 0; // blocks
  };
  /** By the address of its end, so that upper_bound finds a block's. */
  using Regions = std::map<DevicePointer, Region>;

  /** A place as it is; 0 when the card refuses. */
  DevicePointer take_place(std::size_t bytes);
  bool add_region(std::size_t bytes);
  Region& region_of(DevicePointer block) {
    return regions_.upper_bound(block)->second;
  }

  Card& card_;
  std::size_t region_bytes_;
  Regions regions_;
  DevicePointer newest_ = 0; // the end of the region that is cut
  std::map<std::size_t, std::vector<DevicePointer>> idle_; // by size
  std::size_t idle_bytes_ = 0;
};

} // namespace optiq::kernels::cuda
