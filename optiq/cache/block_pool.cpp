#include "optiq/cache/block_pool.h"

#include "optiq/base/error.h"

namespace optiq::cache {

BlockPool::BlockPool(std::size_t max_bytes, kernels::Device& device)
    : max_bytes_(max_bytes), store_(device.make_block_store(max_bytes)) {}

kernels::BlockId BlockPool::allocate(std::size_t bytes) {
  if (!make_room(bytes)) {
    fail(
        ErrorKind::Exhausted,
        "[BlockPool::allocate] cache memory: found {} of {} bytes in use, "
        "expected room for {} more. Use a shorter context or fewer sequences, "
        "or raise the limit.",
        used_,
        max_bytes_,
        bytes);
  }
  // Blocks of other sizes must not hold memory beyond the cap.
  if (!store_->has_idle(bytes) &&
      used_ + store_->idle_bytes() + bytes > max_bytes_) {
    store_->discard_idle();
  }
  const kernels::BlockId block = store_->take(bytes);
  if (block == kernels::BlockId::None) {
    fail(
        ErrorKind::Exhausted,
        "[BlockPool::allocate] the system refused {} bytes with {} of {} in "
        "use, expected the cap to fit into RAM. Lower the limit.",
        bytes,
        used_,
        max_bytes_);
  }
  used_ += bytes;
  return block;
}

void BlockPool::share(kernels::BlockId block) {
  if (++more_owners_[block] == 1) {
    if (const auto kept = kept_.find(block); kept != kept_.end()) {
      kept_bytes_ -= kept->second;
    }
  }
}

void BlockPool::keep(kernels::BlockId block, std::size_t bytes) {
  share(block);
  kept_.emplace(block, bytes);
}

void BlockPool::release_kept(kernels::BlockId block, std::size_t bytes) {
  if (!is_shared(block)) {
    kept_bytes_ -= bytes;
  }
  kept_.erase(block);
  release(block, bytes);
}

bool BlockPool::make_room(std::size_t bytes) {
  while (bytes > max_bytes_ - used_) {
    if (!reclaim_some_ || !reclaim_some_()) {
      return false;
    }
  }
  return true;
}

void BlockPool::release(kernels::BlockId block, std::size_t bytes) {
  if (const auto more = more_owners_.find(block); more != more_owners_.end()) {
    if (--more->second == 0) {
      more_owners_.erase(more);
      if (kept_.contains(block)) {
        kept_bytes_ += bytes;
      }
    }
    return;
  }
  store_->give(block, bytes);
  used_ -= bytes;
}

} // namespace optiq::cache
