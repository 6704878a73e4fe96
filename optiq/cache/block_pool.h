#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>

#include "optiq/kernels/device.h"

namespace optiq::cache {

/**
 * The memory of all sequences on a device: fixed-size blocks per format,
 * recycled, with a hard cap on the bytes handed out. Not thread-safe: the
 * engine thread owns it.
 */
class BlockPool {
 public:
  explicit BlockPool(
      std::size_t max_bytes,
      kernels::Device& device = kernels::cpu_device());
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  /** A block of zeros with one owner. Throws Exhausted, with used, asked and
   * cap. */
  kernels::BlockId allocate(std::size_t bytes);
  /** One owner more, who releases too. Nobody writes to a shared block. */
  void share(kernels::BlockId block);
  /** One owner less; the last one gives the memory back. */
  void release(kernels::BlockId block, std::size_t bytes);
  /** `to` becomes what `from` is. */
  void copy(kernels::BlockId to, kernels::BlockId from, std::size_t bytes) {
    store_->copy(to, from, bytes);
  }
  bool is_shared(kernels::BlockId block) const {
    return more_owners_.contains(block);
  }

  /** One owner more, who keeps it for nobody in particular and gives it back
   * when the pool asks (set_reclaimer); a block has at most one. */
  void keep(kernels::BlockId block, std::size_t bytes);
  void release_kept(kernels::BlockId block, std::size_t bytes);
  bool is_kept(kernels::BlockId block) const {
    return kept_.contains(block);
  }
  /** Bytes of blocks that only their keeper owns. */
  std::size_t kept_bytes() const {
    return kept_bytes_;
  }

  /** Whether `bytes` more fit under the cap, if need be by reclaiming. */
  bool make_room(std::size_t bytes);
  /** Who keeps memory that nobody waits for: each call gives some of it back,
   * or says false when none is left. */
  void set_reclaimer(std::function<bool()> reclaim_some) {
    reclaim_some_ = std::move(reclaim_some);
  }

  std::size_t used_bytes() const {
    return used_;
  }
  std::size_t max_bytes() const {
    return max_bytes_;
  }

 private:
  std::size_t max_bytes_;
  std::size_t used_ = 0;
  /** used_ and its idle bytes are at most max_bytes_. */
  std::unique_ptr<kernels::BlockStore> store_;
  std::unordered_map<kernels::BlockId, int> more_owners_; // beyond the first
  std::unordered_map<kernels::BlockId, std::size_t> kept_; // with their bytes
  std::size_t kept_bytes_ = 0;
  std::function<bool()> reclaim_some_;
};

} // namespace optiq::cache
