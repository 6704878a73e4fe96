#pragma once

#include <memory>
#include <span>
#include <vector>

#include "optiq/cache/block_pool.h"
#include "optiq/cache/layout.h"

namespace optiq::cache {

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
  /** Makes another sequence's first n_tokens the past of this empty one: shares
   * whole `blocks` (per layer, None where hidden), and copies a last one that
   * is not full, and the states. False when the copies find no room; then
   * nothing changed. */
  bool resume(
      int n_tokens,
      const std::vector<std::vector<kernels::BlockId>>& blocks,
      const Sequence* states);
  /** Keeps only the states. */
  void drop_kv();
  /** From a sequence with the same recurrent layers. */
  void copy_states(const Sequence& from);

  const LayerFormat& format(int layer) const {
    return layers_[layer];
  }
  const std::vector<LayerFormat>& layers() const {
    return layers_;
  }
  /** Of its blocks and states, those that it shares too. */
  std::size_t bytes() const;
  /** By absolute position / 64, None where the window hides the block; of a
   * recurrent layer its one state. */
  std::span<const kernels::BlockId> blocks(int layer) const {
    return tables_[layer];
  }

 private:
  /** Owns the last block of every layer instead of sharing it. */
  void copy_last_blocks();
  /** Of states alone. */
  std::vector<std::size_t> state_pieces() const;
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
