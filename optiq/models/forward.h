#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "optiq/models/model.h"
#include "optiq/models/setup.h"
#include "optiq/nn/linear.h"

namespace optiq::models {

/**
 * One run of a model over a flat, ragged batch: some new tokens of each of
 * several sequences, one after another as the rows [T]. The one way to run a
 * model, whatever for.
 *
 *   const mx::array logits =
 *       Forward(setup).add(sequence, tokens, wanted).run();
 *
 * Everything runs in a call of run, hidden_states or run_layers, which come
 * last. They throw Exhausted where the pool of a sequence has no room: nothing
 * is computed then, and every past is as it was.
 */
class Forward {
 public:
  /** `setup` outlives the forward; `observer` sees what its linears read. */
  explicit Forward(const Setup& setup, nn::LinearObserver observer = {});
  explicit Forward(Setup&& setup, nn::LinearObserver observer = {}) = delete;
  Forward(const Forward&) = delete;
  Forward& operator=(const Forward&) = delete;

  /** Continues a sequence, which is no other part of this forward and outlives
   * it, as the adapter does; without one it has the setup's. `wanted`: those of
   * the tokens, ascending, whose logits run returns. */
  Forward& add(
      cache::Sequence& sequence,
      std::span<const std::int32_t> tokens,
      std::span<const int> wanted = {},
      const nn::Adapter* adapter = nullptr);
  /** Begins a sequence of the forward's own, which goes with it. */
  Forward& add_fresh(
      std::span<const std::int32_t> tokens,
      const nn::Adapter* adapter = nullptr);
  /** Bytes of K/V and state that the forward's own sequences take. */
  std::size_t fresh_bytes() const;

  /** Logits of the wanted rows, [n_wanted, vocab_size]; commits the tokens. */
  mx::array run();
  /** What the head reads, before its norm, of all rows, [T, hidden_size];
   * commits the tokens. */
  mx::array hidden_states();
  /**
   * Layers [first, end) alone, on what layer `first` reads: x [T, hidden_size]
   * -> what layer `end` reads. Layers may come in several calls, in order. For
   * fresh sequences: nothing is committed.
   */
  mx::array run_layers(int first, int end, mx::array x);
  /** The same with the layers of `part`, which is the model with other layers
   * left out. */
  mx::array run_layers(const Model& part, int first, int end, mx::array x);

  /** Logits of rows `wanted` (ascending), x being those of what run_layers gave
   * for the last layer; nothing is committed. */
  mx::array logits(const mx::array& x, std::span<const int> wanted) const;

 private:
  void append(
      cache::Sequence* sequence,
      int start,
      std::span<const std::int32_t> tokens,
      const nn::Adapter* adapter);
  void make_fresh_sequences();
  /** Makes the sequences that are missing and room in all, once. */
  void prepare();
  /** Waits for the result and commits the tokens. */
  void finish(const mx::array& result);

  const Setup& setup_;
  nn::ForwardContext context_;
  std::vector<std::int32_t> tokens_; // [T]
  std::vector<int> wanted_; // rows, ascending
  std::vector<std::unique_ptr<cache::Sequence>> fresh_;
  bool is_prepared_ = false;
};

/** Logits [T, vocab_size] of hidden_states' rows, kept from a forward. */
mx::array logits_of(const Setup& setup, const mx::array& hidden);

} // namespace optiq::models
