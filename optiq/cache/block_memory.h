#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <vector>

namespace optiq::cache {

/**
 * Where blocks of a few sizes lie: regions in huge pages, cut from front to
 * back. One decode step reads every block of a sequence, so that 4 KB pages
 * would cost a page walk for every 64 lines. The place of a block that was
 * given back is taken again by blocks of its size only.
 */
class BlockMemory {
 public:
  /** Regions of at most so many bytes, in whole huge pages (but for a block
   * that needs more). */
  explicit BlockMemory(std::size_t region_bytes);

  /** 64-byte aligned; null when the system refuses. */
  std::byte* take(std::size_t bytes);
  void give(std::byte* block, std::size_t bytes);

  /** Bytes of blocks given back whose pages are still held. */
  std::size_t idle_bytes() const {
    return idle_bytes_;
  }
  /** Whether one of them has this size, and so would be taken next. */
  bool has_idle(std::size_t bytes) const;
  /** Gives the pages of these blocks back to the system. */
  void discard_idle();

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

  std::size_t region_bytes_;
  std::vector<std::unique_ptr<std::byte[], Free>> regions_;
  std::byte* next_ = nullptr; // in the last region
  std::size_t left_ = 0;
  std::size_t idle_bytes_ = 0;
  std::vector<Places> places_;
};

} // namespace optiq::cache
