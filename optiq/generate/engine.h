#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "optiq/cache/prefix_tree.h"
#include "optiq/generate/request.h"
#include "optiq/generate/scheduler.h"
#include "optiq/models/setup.h"

namespace optiq::generate {

struct RowToSample;

struct EngineOptions {
  int prefill_chunk = 512; // prompt tokens of a forward, over all requests
  int prefill_chunk_beside_answers = 128; // the same while others decode
  std::size_t max_cache_bytes = std::size_t{4} << 30;
  int max_running = 8; // sequences in one batch
  int max_waiting = 64; // requests in the queue
};

/** What the engine has done and holds; a value. */
struct EngineStatus {
  int running = 0;
  int waiting = 0;
  std::uint64_t steps = 0;
  std::uint64_t prompt_tokens = 0; // computed, those of resumed answers too
  std::uint64_t cached_tokens = 0; // taken from kept prefixes instead
  std::uint64_t answer_tokens = 0;
  std::uint64_t preemptions = 0;
  int last_step_rows = 0;
  int last_step_sequences = 0;
  std::uint64_t running_tokens = 0; // that the running sequences hold
  std::size_t cache_bytes = 0; // in use, kept prefixes included
  std::size_t prefix_bytes = 0; // of them, kept prefixes nobody runs on
  std::size_t max_cache_bytes = 0;
};

/** The most tokens that the answer to a prompt of so many may have: max_tokens,
 * or with `clamp` what the model's positions leave of it. Throws InvalidInput
 * for an empty prompt, for max_tokens below 1 and where they exceed the
 * positions. */
int answer_limit(
    const models::Model& model,
    std::size_t n_prompt,
    int max_tokens,
    bool clamp);

/**
 * Answers requests, many at a time: the one place where sequences are batched.
 * A step is one forward of what the scheduler (generate/scheduler.h) chose, in
 * which prompts are computed beside the next tokens of answers. Neither the
 * batch nor a wait in between changes a bit of an answer.
 *
 * Prefixes of prompts and what answers hold at their end stay in the pool for
 * those that begin alike, until others need the memory. One thread at a time;
 * an engine that goes calls nobody who is still here.
 */
class Engine {
 public:
  Engine(models::Setup setup, EngineOptions options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const models::Setup& setup() const {
    return setup_;
  }
  const models::Model& model() const {
    return *setup_.model;
  }
  const EngineOptions& options() const {
    return options_;
  }

  /** Puts a request into the queue. Throws InvalidInput for a prompt or
   * max_tokens beyond the model's positions or the whole pool (with both
   * numbers), for token ids and options out of range; Exhausted when the queue
   * is full. */
  RequestId submit(Request request);
  /** Ends it before the next forward (Cancelled); nothing if it has ended. */
  void cancel(RequestId id);
  /** One forward of what the scheduler chose, or of nothing. False when no
   * request is left. The failure of a forward ends its requests (Failed). */
  bool step();
  EngineStatus status() const;

 private:
  struct Active; // a request that has not ended
  struct Work; // its part of a forward
  using Layout = std::vector<cache::LayerFormat>;

  std::shared_ptr<const Layout> find_layout(const Layout& layout);
  int limit_answer(const Request& request, const Layout& layout) const;
  Active* find(RequestId id) const;

  // engine_plan.cpp: between two forwards
  std::vector<RowShare> plan_rows();
  RunningView running_view(const Active& active) const;
  /** Of those who may be admitted now. */
  std::vector<WaitingView> waiting_views() const;
  WaitingView waiting_view(const Active& active) const;
  bool waits_for_prefix(const Active& active) const;
  void admit(RequestId id);
  void preempt(RequestId id);
  void set_borders(Active& active, int known_length) const;
  void keep_at_border(Active& active);
  /** Keeps what its sequence holds, and takes the sequence away. */
  void keep_all(Active& active);

  std::vector<Work> make_work(const std::vector<RowShare>& rows) const;
  /** The next tokens of those that are complete; none where it failed. */
  std::optional<std::vector<RowToSample>> run_forward(
      const std::vector<Work>& work);
  void advance(
      const std::vector<Work>& work,
      std::span<const RowToSample> rows);
  void take_token(Active& active, const AnswerToken& token);
  /** Ends those that have an ending or were cancelled. */
  void retire();

  models::Setup setup_;
  EngineOptions options_;
  std::shared_ptr<cache::BlockPool> pool_;
  cache::PrefixTree prefixes_;
  std::vector<std::shared_ptr<const Layout>> layouts_; // of requests, each once
  std::vector<std::unique_ptr<Active>> waiting_; // both in order of arrival
  std::vector<std::unique_ptr<Active>> running_;
  std::uint64_t last_id_ = 0;
  EngineStatus counts_; // its numbers that only grow, and the last step's
};

} // namespace optiq::generate
