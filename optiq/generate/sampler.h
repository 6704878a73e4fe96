#pragma once

#include <cstdint>
#include <random>
#include <span>

namespace optiq::generate {

/** temperature 0 = greedy. Filters apply in the order of mlx-lm: top_p, min_p,
 * top_k, then temperature. */
struct SamplerOptions {
  float temperature = 0.f;
  float top_p = 1.f; // (0, 1]; 1 = off
  float min_p = 0.f; // [0, 1); 0 = off
  int top_k = 0; // 0 = off
  std::uint64_t seed = 0;
};

/** Throws InvalidInput naming the field and its range. */
void validate(const SamplerOptions& options);

/** Draws one token id after another from rows of logits. */
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);
  std::int32_t sample(std::span<const float> logits);

 private:
  SamplerOptions options_;
  std::mt19937_64 random_;
};

} // namespace optiq::generate
