#include "optiq/train/adamw.h"

#include <cmath>
#include <numbers>
#include <vector>

#include <gtest/gtest.h>

namespace optiq::train {
namespace {

constexpr double kUnit = 0x1p-24;

/** The algorithm of the paper in double precision. */
struct Oracle {
  double value;
  double mean = 0;
  double square = 0;

  void step(double g, double rate, int t, const AdamOptions& o) {
    mean = double{o.beta1} * mean + (1 - double{o.beta1}) * g;
    square = double{o.beta2} * square + (1 - double{o.beta2}) * g * g;
    const double m = mean / (1 - std::pow(double{o.beta1}, t));
    const double v = square / (1 - std::pow(double{o.beta2}, t));
    value -= rate * double{o.weight_decay} * value;
    value -= rate * m / (std::sqrt(v) + double{o.epsilon});
  }
};

TEST(AdamW, AgreesWithDoubleOverManySteps) {
  const AdamOptions options{.weight_decay = 0.1f};
  std::vector<float> values{1.f, -2.f, 0.f, 3e-3f};
  std::vector<float> mean(4);
  std::vector<float> square(4);
  std::vector<Oracle> expected;
  for (const float value : values) {
    expected.push_back({value});
  }
  for (int t = 1; t <= 50; ++t) {
    std::vector<float> gradient;
    for (int i = 0; i < 4; ++i) {
      gradient.push_back(static_cast<float>(std::sin(t * (i + 1)) + 0.3 * i));
      expected[i].step(double{gradient[i]} / 4, 0.01, t, options);
    }
    adamw_step({values, mean, square}, gradient, 0.25f, 0.01f, t, options);
  }
  for (int i = 0; i < 4; ++i) {
    // 50 steps of about 10 roundings; a step moves a value by at most 0.01,
    // and 1 - beta2 of a float is off by 6e-5 of itself in both alike.
    EXPECT_NEAR(values[i], expected[i].value, 500 * kUnit * 3);
  }
}

TEST(AdamW, FirstStepIsTheLearningRate) {
  // Bias correction: a constant gradient moves by the rate, whatever its size.
  for (const float g : {1e-4f, 1.f, 300.f}) {
    std::vector<float> value{0.f};
    std::vector<float> mean(1);
    std::vector<float> square(1);
    const std::vector<float> gradient{g};
    adamw_step({value, mean, square}, gradient, 1.f, 0.01f, 1, {});
    EXPECT_NEAR(value[0], -0.01f, 0.01f * 2e-4f) << g; // epsilon / 1e-4
  }
}

TEST(LearningRate, WarmsUpAndDecays) {
  LearningRate rate{.peak = 2.f, .warmup_steps = 4, .total_steps = 24};
  EXPECT_FLOAT_EQ(learning_rate_at(rate, 1), 0.5f);
  EXPECT_FLOAT_EQ(learning_rate_at(rate, 4), 2.f);
  EXPECT_FLOAT_EQ(learning_rate_at(rate, 5), 2.f);
  EXPECT_FLOAT_EQ(learning_rate_at(rate, 15), 1.f);
  EXPECT_NEAR(
      learning_rate_at(rate, 24), 1 + std::cos(std::numbers::pi * 0.95), 1e-6);
  rate.decay = Decay::Linear;
  EXPECT_FLOAT_EQ(learning_rate_at(rate, 10), 1.5f);
  EXPECT_FLOAT_EQ(learning_rate_at(rate, 24), 0.1f);
  EXPECT_FLOAT_EQ(learning_rate_at(rate, 100), 0.f);
  rate.decay = Decay::Constant;
  EXPECT_FLOAT_EQ(learning_rate_at(rate, 3), 1.5f);
  EXPECT_FLOAT_EQ(learning_rate_at(rate, 24), 2.f);
}

} // namespace
} // namespace optiq::train
