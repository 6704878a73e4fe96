#pragma once

#include <memory>
#include <span>

#include "optiq/artifacts/eval_result.h"
#include "optiq/base/progress.h"
#include "optiq/eval/dataset.h"
#include "optiq/models/setup.h"

namespace optiq::eval {

struct KlOptions {
  int batch_tokens = 2048; // per forward
  ProgressSink on_progress; // stage "kl", in tokens; may be empty
};

/**
 * One side of several comparisons. With `keep_states` the reference runs once,
 * when constructed; its final hidden states are kept, [tokens, hidden_size]
 * floats, and only its head runs again.
 */
class KlReference {
 public:
  /** `reference` and `rows` outlive the object. Throws as measure_kl. */
  KlReference(
      const models::Setup& reference,
      std::span<const TokenRow> rows,
      KlOptions options,
      bool keep_states);
  ~KlReference();
  KlReference(const KlReference&) = delete;
  KlReference& operator=(const KlReference&) = delete;

  artifacts::KlScores compare(const models::Setup& setup) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/**
 * KL(reference || setup) of the next-token distributions at every input
 * position of every row, natural logarithm. Throws InvalidInput when the
 * vocabularies differ or a row does not fit.
 */
artifacts::KlScores measure_kl(
    const models::Setup& reference,
    const models::Setup& setup,
    std::span<const TokenRow> rows,
    const KlOptions& options);

/** The scores of given KL values and agreements (0 or 1), row by row. */
artifacts::KlScores summarize_kl(
    std::span<const std::vector<double>> kl,
    std::span<const std::vector<double>> agreement);

} // namespace optiq::eval
