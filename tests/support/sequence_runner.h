#pragma once

#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "optiq/cache/prefix_tree.h"
#include "optiq/generate/engine.h"
#include "optiq/models/forward.h"

namespace optiq::testing {

namespace mx = mlx::core;

/** Runs sequences of a model by hand, forward by forward: what an engine does
 * on its own, for tests that look at logits. */
class SequenceRunner {
 public:
  SequenceRunner(models::Setup setup, generate::EngineOptions options)
      : setup_(std::move(setup)),
        options_(options),
        pool_(std::make_shared<cache::BlockPool>(
            options_.max_cache_bytes,
            setup_.model->device())),
        prefixes_(pool_) {}

  const models::Model& model() const {
    return *setup_.model;
  }
  const std::vector<cache::LayerFormat>& layout() const {
    return setup_.layout;
  }
  std::unique_ptr<cache::Sequence> new_sequence() const {
    return std::make_unique<cache::Sequence>(pool_, setup_.layout);
  }

  /** A sequence that holds the longest prefix kept under the key. */
  std::unique_ptr<cache::Sequence> resume(
      std::span<const std::int32_t> prompt,
      std::string_view key = {}) {
    return prefixes_.resume(key, setup_.layout, prompt);
  }
  void keep_prefix(
      std::span<const std::int32_t> tokens,
      const cache::Sequence& sequence,
      std::string_view key = {}) {
    prefixes_.insert(key, tokens, sequence);
  }
  /** Keeps all of it, as the engine does at the end of an answer. */
  void keep_whole(
      std::span<const std::int32_t> tokens,
      std::unique_ptr<cache::Sequence> sequence,
      std::string_view key = {}) {
    prefixes_.insert_whole(key, tokens, std::move(sequence));
  }

  struct Work {
    cache::Sequence* sequence = nullptr;
    std::span<const std::int32_t> tokens;
  };
  /** One forward; logits of each sequence's last row, [n, vocab_size]. */
  mx::array step(std::span<const Work> work) {
    return run(work, 1);
  }
  /** Appends tokens in chunks; logits of the last `n_logits` rows, [n_logits,
   * vocab_size]. */
  mx::array extend(
      cache::Sequence& sequence,
      std::span<const std::int32_t> tokens,
      int n_logits) {
    const auto n = static_cast<int>(tokens.size());
    std::vector<mx::array> logits;
    for (int begin = 0; begin < n; begin += options_.prefill_chunk) {
      const int end = std::min(n, begin + options_.prefill_chunk);
      const int rows = std::max(0, end - std::max(begin, n - n_logits));
      const Work work{&sequence, tokens.subspan(begin, end - begin)};
      const mx::array part = run({&work, 1}, rows);
      if (rows > 0) {
        logits.push_back(part);
      }
    }
    return model().device().concatenate(logits);
  }

 private:
  /** Logits of the last min(n_logits, rows) rows of each. */
  mx::array run(std::span<const Work> work, int n_logits) {
    models::Forward forward(setup_);
    for (const Work& item : work) {
      const auto n = static_cast<int>(item.tokens.size());
      std::vector<int> last(std::min(n, n_logits));
      std::iota(last.begin(), last.end(), n - static_cast<int>(last.size()));
      forward.add(*item.sequence, item.tokens, last);
    }
    return forward.run();
  }

  models::Setup setup_;
  generate::EngineOptions options_;
  std::shared_ptr<cache::BlockPool> pool_;
  cache::PrefixTree prefixes_;
};

} // namespace optiq::testing
