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

/** Tokens that two texts have in common at their beginning. */
std::size_t common_length(
    std::span<const std::int32_t> a,
    std::span<const std::int32_t> b);

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
 * Beginnings of sequences, kept for those that begin alike: for every key and
 * layout a tree of blocks of 64 tokens. A node shares its K/V blocks with the
 * sequences, and has a snapshot of the recurrent states where one was taken. A
 * leaf may have fewer tokens, the end of a sequence that is no more. Who
 * resumes such an end, or K/V without states in the middle of a block, copies
 * the last block. All of it counts against the pool's cap, and
 * goes least recently used first, leaves before what they hang on and snapshots
 * apart, when the pool has no room for something else. What a sequence still
 * holds costs nothing and stays.
 *
 * The key says all that decides the K/V beside the tokens and the layers:
 * tenant, model, adapter. Not thread-safe, as the pool; a pool has one of
 * these.
 */
class PrefixTree {
 public:
  explicit PrefixTree(std::shared_ptr<BlockPool> pool);
  ~PrefixTree();
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  /** A beginning that a sequence can resume. */
  struct Match {
    int length = 0;
    /** Tokens in whole blocks that are kept, even if they cannot be resumed at
     * their end: so many begin alike. */
    int known_length = 0;
    /** Of the blocks that the sequence would share, those that others hold
     * anyway. */
    std::size_t held_bytes = 0;
  };
  /** The longest prefix of the tokens that a sequence of these layers can
   * resume: shorter than the tokens, so that the last one's logits are
   * computed. */
  Match find(
      std::string_view key,
      std::span<const LayerFormat> layers,
      std::span<const std::int32_t> tokens) const;
  /** A sequence of the pool that begins with it; an empty one, too, when there
   * is no room to copy its states or last block. Throws Exhausted. */
  std::unique_ptr<Sequence> resume(
      std::string_view key,
      const std::vector<LayerFormat>& layers,
      std::span<const std::int32_t> tokens);
  /** Keeps what a sequence that holds these tokens can share: nothing when
   * states or windows do not stand at a border, or a snapshot finds no room.
   * Throws InvalidInput when there are not `sequence.length()` tokens. */
  void insert(
      std::string_view key,
      std::span<const std::int32_t> tokens,
      const Sequence& sequence);
  /** Keeps all of a sequence that nobody continues, its last block too. */
  void insert_whole(
      std::string_view key,
      std::span<const std::int32_t> tokens,
      std::unique_ptr<Sequence> sequence);

  /** Bytes that are kept here alone, and go when others need them. */
  std::size_t kept_bytes() const {
    return pool_->kept_bytes() + snapshot_bytes_;
  }
  /** Pieces of tokens kept, over all keys. */
  std::size_t n_nodes() const {
    return n_nodes_;
  }

 private:
  struct Node;
  struct Root;
  using Path = std::vector<Node*>; // from the first block on

  Root* find_root(std::string_view key, std::span<const LayerFormat> layers)
      const;
  Root& root_of(std::string_view key, const std::vector<LayerFormat>& layers);
  /** The nodes of the tokens' whole blocks, as far as there are any. */
  Path walk(const Root& root, std::span<const std::int32_t> tokens) const;
  /** What can be resumed: so many tokens of a path, which end in its last
   * piece. */
  struct Beginning {
    Path path;
    std::size_t length = 0;
  };
  /** Of a walk, the most that can be resumed, with a piece behind it or the
   * beginning of one. */
  Beginning beginning_of(
      const Root& root,
      Path path,
      std::span<const std::int32_t> tokens) const;
  /** Null when there is no room. */
  std::unique_ptr<Sequence> resume_at(
      const std::vector<LayerFormat>& layers,
      const Beginning& beginning);
  /** Keeps these tokens of a sequence, with a snapshot at their end or none. */
  void add(
      std::string_view key,
      std::span<const std::int32_t> tokens,
      const Sequence& sequence,
      std::unique_ptr<Sequence> snapshot);
  /** Removes a leaf, and what only led to it and cannot be resumed. */
  void remove(Node* leaf);
  bool evict_some();
  /** Bounds the nodes: what they take themselves, no cap counts. */
  void trim();

  std::shared_ptr<BlockPool> pool_;
  std::map<std::string, std::vector<std::unique_ptr<Root>>, std::less<>> roots_;
  std::size_t snapshot_bytes_ = 0;
  std::size_t n_nodes_ = 0; // roots aside
  const Node* pinned_ = nullptr; // is not evicted
  std::uint64_t clock_ = 0;
};

} // namespace optiq::cache
