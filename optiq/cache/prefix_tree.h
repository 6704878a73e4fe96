#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/cache/sequence.h"

namespace optiq::cache {

/** Whether a prefix ends only where a forward ended: layers with states or
 * windows forget how the past was at an earlier length. */
bool needs_border(std::span<const LayerFormat> layers);

/**
 * Where a prefill of n_tokens that resumes at `from` should end a forward, for
 * the prefix to be kept: n_tokens rounded down to a block. 0 when that is no
 * more than `from`, or when a snapshot of the states there would cost more than
 * twice the K/V of the tokens since `from`.
 */
int border_to_keep(std::span<const LayerFormat> layers, int from, int n_tokens);

/**
 * Beginnings of sequences, kept for those that begin alike: a tree of blocks of
 * 64 tokens per key. A node shares its K/V blocks with the sequences, and has a
 * snapshot of the recurrent states where one was taken. All of it counts
 * against the pool's cap, and goes least recently used first, leaves before
 * what they hang on and snapshots apart, when the pool has no room for
 * something else. What a sequence still holds costs nothing and stays.
 *
 * The key says all that decides the K/V beside the tokens and the layers:
 * tenant, model, adapter. Not thread-safe, as the pool; a pool has one tree.
 */
class PrefixTree {
 public:
  PrefixTree(std::shared_ptr<BlockPool> pool, std::vector<LayerFormat> layers);
  ~PrefixTree();
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  /** What a sequence of this tree keeps per layer. */
  const std::vector<LayerFormat>& layers() const {
    return layers_;
  }
  /** The longest prefix of the tokens that a sequence can resume: whole blocks,
   * shorter than the tokens, so that the last one's logits are computed. */
  int find(std::string_view key, std::span<const std::int32_t> tokens) const;
  /** Starts an empty sequence of the pool from it; returns its length. */
  int resume(
      std::string_view key,
      std::span<const std::int32_t> tokens,
      Sequence& sequence);
  /** Keeps what a sequence that holds these tokens can share: nothing when
   * states or windows do not stand at a border, or a snapshot finds no room.
   * Throws InvalidInput when there are not `sequence.length()` tokens. */
  void insert(
      std::string_view key,
      std::span<const std::int32_t> tokens,
      const Sequence& sequence);

  /** Blocks of tokens kept, over all keys. */
  std::size_t n_nodes() const;

 private:
  struct Node;
  using Path = std::vector<Node*>; // from the first block on

  /** The nodes of the tokens' whole blocks, as far as there are any. */
  Path walk(std::string_view key, std::span<const std::int32_t> tokens) const;
  /** The longest beginning of a path that a sequence can resume. */
  std::size_t usable_blocks(const Path& path) const;
  /** Removes a leaf, and what only led to it and cannot be resumed. */
  void remove(Node* leaf);
  bool evict_some();

  std::shared_ptr<BlockPool> pool_;
  std::vector<LayerFormat> layers_;
  std::vector<LayerFormat> state_layers_; // of snapshots; empty if none
  std::map<std::string, std::unique_ptr<Node>, std::less<>> roots_;
  std::uint64_t clock_ = 0;
};

} // namespace optiq::cache
