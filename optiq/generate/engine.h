#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "optiq/cache/prefix_tree.h"
#include "optiq/models/setup.h"

namespace optiq::generate {

namespace mx = mlx::core;

struct EngineOptions {
  int prefill_chunk = 512; // tokens per forward of one prompt
  std::size_t max_cache_bytes = std::size_t{4} << 30;
};

/** Runs sequences of one model: owns their block pool and the prefixes kept in
 * it. One thread at a time. */
class Engine {
 public:
  Engine(models::Setup setup, EngineOptions options);

  const models::Model& model() const {
    return *setup_.model;
  }
  const EngineOptions& options() const {
    return options_;
  }
  std::unique_ptr<cache::Sequence> new_sequence() const;

  /** A sequence that holds the longest prefix of the prompt that was kept under
   * this key, at least the last token short. The key is what separates users
   * who must not share: a tenant, an adapter. Throws Exhausted. */
  std::unique_ptr<cache::Sequence> resume(
      std::span<const std::int32_t> prompt,
      std::string_view key = {});
  /** Keeps a sequence's prefix for prompts that begin with its tokens, until
   * others need the memory. What can be kept, and where a prefill should pause
   * for it, cache/prefix_tree.h says. */
  void keep_prefix(
      std::span<const std::int32_t> tokens,
      const cache::Sequence& sequence,
      std::string_view key = {});
  const cache::PrefixTree& prefixes() const {
    return prefixes_;
  }

  /** Appends tokens to a sequence; logits of its last `n_logits` rows,
   * [n_logits, vocab_size]. Prefills in chunks. */
  mx::array extend(
      cache::Sequence& sequence,
      std::span<const std::int32_t> tokens,
      int n_logits);

  /** One forward of several sequences, each with its own new tokens; logits of
   * each sequence's last row, [n, vocab_size]. */
  struct Work {
    cache::Sequence* sequence = nullptr;
    std::span<const std::int32_t> tokens;
  };
  mx::array step(std::span<const Work> work);

 private:
  /** One forward; logits of the last min(n_logits, rows) rows of each. */
  mx::array run(std::span<const Work> work, int n_logits);

  models::Setup setup_;
  EngineOptions options_;
  std::shared_ptr<cache::BlockPool> pool_;
  cache::PrefixTree prefixes_;
};

} // namespace optiq::generate
