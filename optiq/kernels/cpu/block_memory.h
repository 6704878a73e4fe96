#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "optiq/kernels/block_store.h"

namespace optiq::kernels::cpu {

/** On the CPU a block's id is its address. */
inline std::byte* address_of(BlockId block) {
  return reinterpret_cast<std::byte*>(block);
}
inline BlockId id_of(std::byte* address) {
  return static_cast<BlockId>(reinterpret_cast<std::uint64_t>(address));
}

/**
 * Where blocks of a few sizes lie: regions in huge pages, cut from front to
 * back. One decode step reads every block of a sequence, so that 4 KB pages
 * would cost a page walk for every 64 lines. The place of a block that was
 * given back is taken again by blocks of its size only.
 */
class BlockMemory final : public BlockStore {
 public:
  /** Regions of at most so many bytes, in whole huge pages (but for a block
   * that needs more). */
  explicit BlockMemory(std::size_t region_bytes);

  /** 64-byte aligned. */
  BlockId take(std::size_t bytes) override;
  void give(BlockId block, std::size_t bytes) override;
  void copy(BlockId to, BlockId from, std::size_t bytes) override;
  std::size_t idle_bytes() const override {
    return idle_bytes_;
  }
  bool has_idle(std::size_t bytes) const override;
  void discard_idle() override;

 private:
  struct Free {
    void operator()(std::byte* region) const {
      std::free(region);
    }
  };
  /** The places of one size that nobody uses. */
  struct Places {
    std::size_t bytes = 0;
    std::vector<std::byte*> idle;
    std::vector<std::byte*> discarded;
  };
  Places& places_of(std::size_t bytes);
  /** Memory of that size as it is; null when the system refuses. */
  std::byte* take_place(std::size_t bytes);

  std::size_t region_bytes_;
  std::vector<std::unique_ptr<std::byte[], Free>> regions_;
  std::byte* next_ = nullptr; // in the last region
  std::size_t left_ = 0;
  std::size_t idle_bytes_ = 0;
  std::vector<Places> places_;
};

} // namespace optiq::kernels::cpu
