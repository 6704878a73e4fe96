#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "optiq/generate/sampler.h"
#include "optiq/models/model.h"

namespace optiq::generate {

/** Runs sequences of one model: owns the block pool. One engine thread. */
struct EngineOptions {
  kernels::Compute compute = kernels::Compute::Fast;
  int prefill_chunk = 512; // tokens per forward of one prompt
  std::size_t max_cache_bytes = std::size_t{4} << 30;
};

class Engine {
 public:
  Engine(std::shared_ptr<const models::Model> model, EngineOptions options);

  const models::Model& model() const {
    return *model_;
  }
  const EngineOptions& options() const {
    return options_;
  }
  std::unique_ptr<cache::Sequence> new_sequence() const;

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
  std::shared_ptr<const models::Model> model_;
  EngineOptions options_;
  std::shared_ptr<cache::BlockPool> pool_;
};

/** What ended a completion. */
enum class FinishReason { Stop, Length, Cancelled };

struct GenerateOptions {
  int max_tokens = 256;
  SamplerOptions sampler;
  std::vector<std::int32_t> stop_ids;
};

struct Completion {
  std::vector<std::int32_t> tokens; // without the stop token
  FinishReason reason = FinishReason::Length;
};

/** Called with each new token; returns false to stop (Cancelled). */
using TokenSink = std::function<bool(std::int32_t token)>;

Completion generate(
    Engine& engine,
    std::span<const std::int32_t> prompt,
    const GenerateOptions& options,
    const TokenSink& on_token);

/** Generates for many prompts, `batch` at a time, greedily refilled; results in
 * the order of the prompts. */
std::vector<Completion> generate_batch(
    Engine& engine,
    const std::vector<std::vector<std::int32_t>>& prompts,
    const GenerateOptions& options,
    int batch,
    const std::function<void(std::size_t prompt, const Completion&)>& on_done);

} // namespace optiq::generate
