#include "optiq/train/adamw.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace optiq::train {

void adamw_step(
    const AdamTensor& tensor,
    std::span<const float> gradient,
    float gradient_scale,
    float learning_rate,
    int step,
    const AdamOptions& options) {
  const auto correction = [&](float beta) {
    return static_cast<float>(1.0 - std::pow(double{beta}, step));
  };
  const float by_mean = 1.f / correction(options.beta1);
  const float by_square = 1.f / correction(options.beta2);
  const float keeps = 1.f - learning_rate * options.weight_decay;
  for (std::size_t i = 0; i < tensor.values.size(); ++i) {
    const float g = gradient[i] * gradient_scale;
    float& mean = tensor.mean[i];
    float& square = tensor.square[i];
    mean = options.beta1 * mean + (1.f - options.beta1) * g;
    square = options.beta2 * square + (1.f - options.beta2) * g * g;
    const float root = std::sqrt(square * by_square) + options.epsilon;
    tensor.values[i] =
        tensor.values[i] * keeps - learning_rate * (mean * by_mean) / root;
  }
}

float learning_rate_at(const LearningRate& schedule, int step) {
  if (step <= schedule.warmup_steps) {
    return schedule.peak * static_cast<float>(step) /
        static_cast<float>(schedule.warmup_steps);
  }
  if (schedule.decay == Decay::Constant) {
    return schedule.peak;
  }
  const double done = static_cast<double>(step - 1 - schedule.warmup_steps) /
      std::max(1, schedule.total_steps - schedule.warmup_steps);
  const double share = std::clamp(done, 0.0, 1.0);
  const double left = schedule.decay == Decay::Linear
      ? 1.0 - share
      : (1.0 + std::cos(std::numbers::pi * share)) / 2;
  return static_cast<float>(double{schedule.peak} * left);
}

} // namespace optiq::train
