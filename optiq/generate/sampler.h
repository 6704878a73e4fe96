#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "optiq/generate/logit_scan.h"

namespace optiq::generate {

/** In which order temperature and filters apply. */
enum class FilterOrder {
  /** top_p, min_p, top_k, typical_p, epsilon_cutoff, eta_cutoff, temperature:
   * the first three as mlx-lm does, which has no others. */
  MlxLm,
  /** temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff:
   * each sees the probabilities that those before it left. */
  Transformers,
};

/** temperature 0 = greedy: no filter changes which token is the best. Formulas
 * stand at the filters in sampler.cpp. */
struct SamplerOptions {
  float temperature = 0.f;
  float top_p = 1.f; // (0, 1]; 1 = off
  float min_p = 0.f; // [0, 1); 0 = off
  int top_k = 0; // 0 = off
  float typical_p = 1.f; // (0, 1]; 1 = off
  float epsilon_cutoff = 0.f; // [0, 1); 0 = off
  float eta_cutoff = 0.f; // [0, 1); 0 = off
  FilterOrder order = FilterOrder::MlxLm;
  std::uint64_t seed = 0;
};

/** Throws InvalidInput naming the field and its range. */
void validate(const SamplerOptions& options);

/**
 * Draws one token id after another from rows of logits. Logits that are no
 * numbers, or minus infinity, are never drawn while there are others; plus
 * infinity always is. A seed draws the same tokens on every machine: weights
 * are those of kernels/logit_blocks.h, and sums have a fixed order.
 */
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);
  /** Whether every token is the first of those with the largest logit. */
  bool is_greedy() const {
    return options_.temperature == 0.f;
  }
  std::int32_t sample(LogitScan& scan);
  /** Of a row that lies elsewhere, with sums at this scale: the blocks that the
   * next call of `sample` reads, which is all that has to come. */
  std::vector<std::size_t> next_blocks(LogitScan& scan) const;
  float scale() const;
  /** Of a row that is not empty. */
  std::int32_t sample(std::span<const float> logits);

 private:
  bool takes_largest(const LogitScan& scan) const;

  SamplerOptions options_;
  std::mt19937_64 random_;
};

} // namespace optiq::generate
