#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "optiq/cache/layout.h"
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
  std::function<bool()> reclaim_some_;
};

/**
 * One sequence's past, layer by layer: block tables for attention layers, flat
 * state for recurrent ones. The forward writes at absolute positions;
 * `commit` makes them part of the past. Gives its memory back when destroyed.
 */
class Sequence {
 public:
  /** Takes the recurrent layers' states, zeroed. Throws Exhausted. */
  Sequence(std::shared_ptr<BlockPool> pool, std::vector<LayerFormat> layers);
  ~Sequence();
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  /** Tokens committed. */
  int length() const {
    return length_;
  }
  /** Makes room for n_tokens in all. Throws Exhausted; then nothing changed. */
  void reserve(int n_tokens);
  /** Gives back the blocks that every later token's window hides. */
  void commit(int n_tokens);
  /** Makes another sequence's first n_tokens, whole blocks, the past of this
   * empty one: shares `blocks` (per layer, None where hidden) and copies the
   * states. */
  void resume(
      int n_tokens,
      const std::vector<std::vector<kernels::BlockId>>& blocks,
      const Sequence* states);
  /** From a sequence with the same recurrent layers. */
  void copy_states(const Sequence& from);

  const LayerFormat& format(int layer) const {
    return layers_[layer];
  }
  /** By absolute position / 64, None where the window hides the block; of a
   * recurrent layer its one state. */
  std::span<const kernels::BlockId> blocks(int layer) const {
    return tables_[layer];
  }

 private:
  /** Brings the tables to these sizes, or throws and leaves them. */
  void grow(const std::vector<std::size_t>& pieces);
  void shrink(const std::vector<std::size_t>& pieces);

  std::shared_ptr<BlockPool> pool_;
  std::vector<LayerFormat> layers_;
  /** Per layer; None where released. */
  std::vector<std::vector<kernels::BlockId>> tables_;
  int length_ = 0;
};

} // namespace optiq::cache
