#pragma once

#include <cstddef>
#include <span>

namespace optiq::train {

struct AdamOptions {
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0.01f;
};

/** One tensor with its running means of the gradient and of its square. */
struct AdamTensor {
  std::span<float> values;
  std::span<float> mean;
  std::span<float> square;
};

/**
 * Step `step` (from 1) of AdamW (arXiv 1711.05101, algorithm 2) with bias
 * correction, the gradient times `gradient_scale`. A value's new bits depend on
 * nothing else.
 */
void adamw_step(
    const AdamTensor& tensor,
    std::span<const float> gradient,
    float gradient_scale,
    float learning_rate,
    int step,
    const AdamOptions& options);

/** How the learning rate goes on after the warmup. */
enum class Decay {
  Cosine, // (1 + cos) / 2, to 0
  Linear, // to 0
  Constant,
};

struct LearningRate {
  float peak = 1e-4f;
  Decay decay = Decay::Cosine;
  int warmup_steps = 0; // linear from peak / warmup_steps
  int total_steps = 1; // warmup included
};

/** Of step `step`, from 1. */
float learning_rate_at(const LearningRate& schedule, int step);

} // namespace optiq::train
